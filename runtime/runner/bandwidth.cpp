#include "bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <numeric>
#include <thread>
#include <vector>

namespace onekv::runner {
namespace {

constexpr size_t kWords = size_t{1} << 25;  // 256 MiB of 8-byte words, far above any cache
constexpr int kRounds = 7;

uint64_t sum(const uint64_t* first, const uint64_t* last) {
  return std::accumulate(first, last, uint64_t{0});
}

}  // namespace

double streaming_read(int64_t threads) {
  const size_t parts = threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
  const std::vector<uint64_t> words(kWords, 1);
  std::vector<double> rates;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<uint64_t> sums(parts);
    std::vector<std::thread> workers;
    const auto begin = std::chrono::steady_clock::now();
    for (size_t part = 0; part < parts; ++part)
      workers.emplace_back([&, part] {
        sums[part] =
            sum(words.data() + kWords * part / parts, words.data() + kWords * (part + 1) / parts);
      });
    for (std::thread& worker : workers) worker.join();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    // The sum is used, so that the reads cannot be left out.
    if (std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == kWords)
      rates.push_back(kWords * sizeof(uint64_t) / taken.count() / 1e9);
  }
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

}  // namespace onekv::runner
