// An engine made of modes: each call goes to the first that takes it.
#pragma once

#include "any_mode.h"

namespace onekv {
namespace {

template <class... Modes>
struct ModeList {
  // Calls body with a null pointer of the chosen mode's type.
  template <class Body>
  static auto choose(const Problem& p, const Body& body) {
    return choose_from<Body, Modes...>(p, body);
  }

 private:
  template <class Body, class First, class... Rest>
  static auto choose_from(const Problem& p, const Body& body) {
    if constexpr (sizeof...(Rest) == 0) {
      return body(static_cast<First*>(nullptr));
    } else {
      if (First::takes(p)) return body(static_cast<First*>(nullptr));
      return choose_from<Body, Rest...>(p, body);
    }
  }
};

template <class List>
struct SimdEngine {
  static int tokens_per_piece(const Problem& p) { return most_tokens(p); }

  static int64_t scratch_bytes(const Problem& p) {
    return List::choose(
        p, [&](auto* mode) { return scratch_for<std::remove_pointer_t<decltype(mode)>>(p); });
  }

  static int64_t shared_bytes(const Problem& p) {
    return List::choose(p, [&](auto* mode) {
      using Mode = std::remove_pointer_t<decltype(mode)>;
      return p.args->cos ? kSuperTile * Mode::table_row_bytes(p, padded_half<Mode>(p)) : 0;
    });
  }

  static void prepare(const Problem& p, void* shared) {
    List::choose(p, [&](auto* mode) {
      using Mode = std::remove_pointer_t<decltype(mode)>;
      int64_t tokens = p.args->new_tokens < most_tokens(p) ? p.args->new_tokens : most_tokens(p);
      int rows = tile_rows(static_cast<int>(tokens) * p.group);
      fill_tile_table<Mode>(p, padded_half<Mode>(p), rows, static_cast<char*>(shared));
    });
  }

  static void attend(const Problem& p, const Piece& piece, const Piece* next, const void* shared,
                     void* scratch, Partial result) {
    List::choose(p, [&](auto* mode) {
      attend_piece<std::remove_pointer_t<decltype(mode)>>(p, piece, next, shared, scratch, result);
    });
  }
};

template <class List>
constexpr Engine make_engine(const char* name, bool (*supported)()) {
  using E = SimdEngine<List>;
  return {name,          supported, E::tokens_per_piece, E::scratch_bytes, E::shared_bytes,
          E::prepare,    E::attend};
}

// An engine with one mode of its own. What that does not take is a lesser engine's, whose code is
// then not there twice.
template <class Mode, const Engine& Lesser>
struct LayeredEngine {
  using Own = SimdEngine<ModeList<Mode>>;

  template <class Function>
  static Function choose(const Problem& p, Function Engine::*lesser, Function own) {
    return Mode::takes(p) ? own : Lesser.*lesser;
  }

  static int64_t scratch_bytes(const Problem& p) {
    return choose(p, &Engine::scratch_bytes, &Own::scratch_bytes)(p);
  }
  static int64_t shared_bytes(const Problem& p) {
    return choose(p, &Engine::shared_bytes, &Own::shared_bytes)(p);
  }
  static void prepare(const Problem& p, void* shared) {
    choose(p, &Engine::prepare, &Own::prepare)(p, shared);
  }
  static void attend(const Problem& p, const Piece& piece, const Piece* next, const void* shared,
                     void* scratch, Partial result) {
    choose(p, &Engine::attend, &Own::attend)(p, piece, next, shared, scratch, result);
  }
};

template <class Mode, const Engine& Lesser>
constexpr Engine layered_engine(const char* name, bool (*supported)()) {
  using E = LayeredEngine<Mode, Lesser>;
  return {name,       supported, E::Own::tokens_per_piece, E::scratch_bytes, E::shared_bytes,
          E::prepare, E::attend};
}

}  // namespace
}  // namespace onekv
