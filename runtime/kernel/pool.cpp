// The pool used when the caller brings none. Idle threads sleep on a condition variable: a pool
// that spins collapses when the cores are shared with the host runtime's own threads.
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "problem.h"

namespace onekv {
namespace {

constexpr int kMostWorkers = 63;

class Pool {
 public:
  // The calling thread takes tasks too, and waits only for those that others have begun.
  void run(int tasks, void (*body)(void*, int), void* context) {
    std::unique_lock<std::mutex> lock(mutex_);
    body_ = body;
    context_ = context;
    next_ = 0;
    tasks_ = unfinished_ = tasks;
    grow(tasks - 1);
    wake_.notify_all();
    while (next_ < tasks_) take_one(lock);
    done_.wait(lock, [this] { return unfinished_ == 0; });
    tasks_ = 0;
  }

  // One call at a time, and none in a child process, where the threads do not exist.
  bool try_enter() { return owner_ == getpid() && busy_.try_lock(); }
  void leave() { busy_.unlock(); }

 private:
  void grow(int workers) {
    try {
      for (; workers_ < workers && workers_ < kMostWorkers; ++workers_) {
        std::thread(&Pool::work, this).detach();
      }
    } catch (const std::system_error&) {
      // With fewer threads the caller takes more of the tasks itself.
    }
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return next_ < tasks_; });
      take_one(lock);
    }
  }

  void take_one(std::unique_lock<std::mutex>& lock) {
    int task = next_++;
    lock.unlock();
    body_(context_, task);
    lock.lock();
    if (--unfinished_ == 0) done_.notify_one();
  }

  std::mutex busy_;
  const pid_t owner_ = getpid();
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  void (*body_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int next_ = 0, tasks_ = 0, unfinished_ = 0, workers_ = 0;
};

// Never destroyed: its threads may sleep in it until the process ends.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

}  // namespace

int machine_threads() {
  unsigned threads = std::thread::hardware_concurrency();
  return threads ? static_cast<int>(threads) : 1;
}

void run_on_pool(int tasks, void (*body)(void*, int), void* context) {
  if (tasks > 1 && pool().try_enter()) {
    pool().run(tasks, body, context);
    pool().leave();
    return;
  }
  for (int task = 0; task < tasks; ++task) body(context, task);
}

}  // namespace onekv
