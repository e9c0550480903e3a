// One call: check, split into pieces, append, compute the pieces on threads, merge.
#include <atomic>
#include <cmath>
#include <new>

#include "memory.h"
#include "problem.h"
#include "records.h"

namespace onekv {
namespace {

// Pieces are cut by the shape alone, never by the number of threads: results do not depend on it.
constexpr int64_t kWantedPieces = 32;
constexpr int64_t kShortestChunk = 512;
constexpr int64_t kChunkStep = 256;

struct Cut {
  int tokens;            // queries of S per piece
  int64_t token_blocks;  // pieces along S
  int64_t chunk;         // positions per piece
  int chunks;            // pieces along the context, at most

  int64_t groups(const Problem& p) const { return p.args->batch * p.args->kv_heads * token_blocks; }
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Cut cut(const Problem& problem, const Engine& engine) {
  const onekv_attend_args& a = *problem.args;
  Cut result;
  int64_t most = engine.tokens_per_piece(problem);
  result.tokens = static_cast<int>(a.new_tokens < most ? a.new_tokens : most);
  result.token_blocks = ceil_div(a.new_tokens, result.tokens);
  int64_t longest = problem.end - first_visible(problem, a.position);
  int64_t wanted = ceil_div(kWantedPieces, result.groups(problem));
  int64_t chunk = ceil_div(ceil_div(longest, wanted), kChunkStep) * kChunkStep;
  result.chunk = chunk < kShortestChunk ? kShortestChunk : chunk;
  result.chunks = static_cast<int>(ceil_div(longest, result.chunk));
  return result;
}

int64_t padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// What all threads of one call share.
struct Run {
  const Problem& problem;
  const Engine& engine;
  Cut cut;
  int workers;
  char* memory;  // shared | scratch per worker | partials | unfinished chunks per group
  std::atomic<int64_t> next{0};

  int64_t queries() const { return int64_t{cut.tokens} * problem.group; }
  int64_t partial_floats() const { return queries() * (problem.head_dim + 2); }
  int64_t shared_bytes() const { return padded(engine.shared_bytes(problem)); }
  int64_t scratch_bytes() const { return padded(engine.scratch_bytes(problem)); }
  // With one chunk a worker needs a single partial, which it finishes at once.
  int64_t partials() const { return cut.chunks == 1 ? workers : cut.groups(problem) * cut.chunks; }
  int64_t partial_bytes() const { return padded(partial_floats() * sizeof(float)); }

  char* scratch(int worker) const { return memory + shared_bytes() + worker * scratch_bytes(); }
  char* partial_memory(int64_t index) const { return scratch(workers) + index * partial_bytes(); }
  std::atomic<int>* unfinished(int64_t group) const {
    return reinterpret_cast<std::atomic<int>*>(partial_memory(partials())) + group;
  }
  int64_t bytes() const {
    return shared_bytes() + workers * scratch_bytes() + partials() * partial_bytes() +
           cut.groups(problem) * static_cast<int64_t>(sizeof(std::atomic<int>));
  }
  Partial partial(int64_t index) const {
    float* start = reinterpret_cast<float*>(partial_memory(index));
    return {start, start + queries(), start + 2 * queries()};
  }
};

// Sets result to the merged partials of one query and writes it, divided.
void finish_query(const Run& run, const Partial* partials, int count, int query, int64_t offset) {
  int dim = run.problem.head_dim;
  float max = -INFINITY, sum = 0, out[kMaxHeadDim] = {};
  for (int i = 0; i < count; ++i) {
    if (partials[i].sum[query] != 0) max = std::fmax(max, partials[i].max[query]);
  }
  for (int i = 0; i < count; ++i) {
    if (partials[i].sum[query] == 0) continue;
    float factor = std::exp2(partials[i].max[query] - max);
    const float* from = partials[i].out + int64_t{query} * dim;
    sum += factor * partials[i].sum[query];
    for (int d = 0; d < dim; ++d) out[d] += factor * from[d];
  }
  for (int d = 0; d < dim; ++d) out[d] /= sum;
  const onekv_attend_args& a = *run.problem.args;
  write_activations(a.activations, out, dim, a.out.data, offset);
}

constexpr int kMostChunks = static_cast<int>(kWantedPieces) + 1;

void finish(const Run& run, const Piece& piece, const Partial* partials, int count) {
  int group = run.problem.group;
  for (int query = 0; query < piece.tokens * group; ++query) {
    int64_t token = piece.first_token + query / group;
    int64_t head = piece.kv_head * group + query % group;
    finish_query(run, partials, count, query,
                 offset_of(run.problem.args->out, piece.batch, token, head));
  }
}

// The piece of a group of queries and a chunk; empty when those queries do not reach it.
Piece piece_at(const Run& run, int64_t group, int chunk) {
  const onekv_attend_args& a = *run.problem.args;
  const Cut& cut = run.cut;
  // The last queries see most: they go first.
  int64_t block = cut.token_blocks - 1 - group % cut.token_blocks;
  int64_t head = group / cut.token_blocks;
  int64_t first = block * cut.tokens;
  int64_t tokens = a.new_tokens - first < cut.tokens ? a.new_tokens - first : cut.tokens;
  int64_t begin = first_visible(run.problem, a.position + first) + chunk * cut.chunk;
  int64_t end = a.position + first + tokens;
  if (chunk + 1 < cut.chunks && begin + cut.chunk < end) end = begin + cut.chunk;
  return {head / a.kv_heads, head % a.kv_heads, first, static_cast<int>(tokens), begin, end};
}

// A worker's items; each is taken while the one before it is computed.
class Items {
 public:
  explicit Items(Run& run) : run_(run), items_(run.cut.groups(run.problem) * run.cut.chunks) {
    take();
  }

  bool next(int64_t* item, Piece* piece) {
    if (next_ >= items_) return false;
    *item = next_;
    *piece = following_;
    take();
    return true;
  }

  const Piece* following() const {
    return next_ < items_ && following_.begin < following_.end ? &following_ : nullptr;
  }

 private:
  void take() {
    next_ = run_.next.fetch_add(1);
    int chunks = run_.cut.chunks;
    if (next_ < items_) following_ = piece_at(run_, next_ / chunks, static_cast<int>(next_ % chunks));
  }

  Run& run_;
  int64_t items_, next_ = 0;
  Piece following_{};
};

void compute(const Run& run, const Piece& piece, const Piece* next, int worker, Partial result) {
  if (piece.begin >= piece.end) {
    for (int64_t i = 0; i < run.queries(); ++i) result.sum[i] = 0;
    return;
  }
  run.engine.attend(run.problem, piece, next, run.memory, run.scratch(worker), result);
}

void work(void* context, int worker) {
  Run& run = *static_cast<Run*>(context);
  int chunks = run.cut.chunks;
  Items items(run);
  Piece piece;
  for (int64_t item; items.next(&item, &piece);) {
    int64_t group = item / chunks;
    Partial first = run.partial(chunks == 1 ? worker : item);
    compute(run, piece, items.following(), worker, first);
    if (chunks == 1) {
      finish(run, piece, &first, 1);
    } else if (run.unfinished(group)->fetch_sub(1, std::memory_order_acq_rel) == 1) {
      Partial all[kMostChunks];
      for (int i = 0; i < chunks; ++i) all[i] = run.partial(group * chunks + i);
      finish(run, piece, all, chunks);
    }
  }
}

// Waking a thread takes as long as some hundred thousand multiply-adds.
int64_t worthwhile_threads(const Problem& problem) {
  constexpr double kWorthAThread = 1 << 18;
  const onekv_attend_args& a = *problem.args;
  double queries = static_cast<double>(a.batch) * a.heads * a.new_tokens;
  int64_t visible = problem.end - first_visible(problem, a.position);
  double worth = 1 + 2 * queries * visible * problem.head_dim / kWorthAThread;
  int64_t threads = machine_threads();
  return worth < threads ? static_cast<int64_t>(worth) : threads;
}

onekv_status run_pieces(Run& run) {
  const onekv_attend_args& a = *run.problem.args;
  run.memory = take_memory(run.bytes());
  if (!run.memory) return ONEKV_NO_MEMORY;
  for (int64_t i = 0; i < run.cut.groups(run.problem); ++i) {
    new (run.unfinished(i)) std::atomic<int>(run.cut.chunks);
  }
  append(run.problem);
  run.engine.prepare(run.problem, run.memory);
  if (run.workers == 1) {
    work(&run, 0);
  } else if (a.parallel) {
    a.parallel(a.parallel_context, run.workers, work, &run);
  } else {
    run_on_pool(run.workers, work, &run);
  }
  // What a prefill needs grows with its depth, and would be held while tokens are decoded.
  a.new_tokens == 1 ? keep_memory(run.memory) : release_memory(run.memory);
  return ONEKV_OK;
}

}  // namespace
}  // namespace onekv

extern "C" onekv_status onekv_attend(const onekv_attend_args* args) {
  using namespace onekv;
  if (!args) return ONEKV_NULL_ARGUMENT;
  onekv_status status = check_arguments(*args);
  if (status != ONEKV_OK) return status;
  int parts = args->rows.part[1] ? 2 : 1;
  int dim = static_cast<int>(args->head_dim);
  Problem problem{args,  dim,         static_cast<int>(args->heads / args->kv_heads),
                  parts, dim / parts, args->position + args->new_tokens};
  status = check_contents(problem);
  if (status != ONEKV_OK) return status;
  const Engine& chosen = *engine(args->isa < 0 ? onekv_isa_best() : args->isa);
  Run run{problem, chosen, cut(problem, chosen), 1, nullptr};
  int64_t items = run.cut.groups(problem) * run.cut.chunks;
  int64_t threads = args->threads ? args->threads : worthwhile_threads(problem);
  run.workers = static_cast<int>(threads < items ? threads : items);
  return run_pieces(run);
}
