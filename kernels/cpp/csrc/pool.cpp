// Threads: those of the OpenMP run-time that the process computes with anyway, else a pool of POSIX threads, made by the
// first call that wants one and then kept.
//
// OpenMP's threads wait awake for a while after each of PyTorch's operations. Others beside them have to be woken and get
// half a core each: between the convolutions of a network a kernel of 40 us then takes 85 on two cores. A forked child
// must not use its parent's OpenMP, GNU's waits for ever, and has the pool.
//
// Plain pthreads and no C++ run-time library: a library that needs a newer libstdc++ than the process has loaded (conda
// environments) would not load. Any number of threads may call at once: jobs stand in a list and workers take the first
// that still wants help. A fork leaves the child without workers, so a pool belongs to a process id: the child makes its
// own and leaks the parent's, whose locks may be held for ever.
#include "pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>

namespace {

constexpr int64_t kMaxWorkers = 1024;

struct Job {
    void (*body)(void*, int64_t, int64_t);
    void* context;
    int64_t count, grain;
    std::atomic<int64_t> next;
    int64_t wanted, working;  // helpers still welcome, helpers inside; both under the pool's lock
    Job* following;

    void work() {
        for (;;) {
            const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
            if (begin >= count) return;
            body(context, begin, begin + grain < count ? begin + grain : count);
        }
    }
};

struct Pool {
    pid_t process;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    Job* jobs;
    int64_t workers;
};

std::atomic<Pool*> current{nullptr};
std::atomic<Region> region{nullptr};
pid_t region_process = 0;

void help(void* job) { static_cast<Job*>(job)->work(); }

void* serve(void* argument) {
    Pool& pool = *static_cast<Pool*>(argument);
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        Job* job = pool.jobs;
        while (job && !job->wanted) job = job->following;
        if (!job) {
            pthread_cond_wait(&pool.wake, &pool.lock);
            continue;
        }
        --job->wanted;
        ++job->working;
        pthread_mutex_unlock(&pool.lock);
        job->work();
        pthread_mutex_lock(&pool.lock);
        job->wanted = 0;  // nothing is left of it
        if (--job->working == 0) pthread_cond_broadcast(&pool.done);
    }
}

// The pool of this process, or null where memory has run out.
Pool* get_pool() {
    Pool* pool = current.load(std::memory_order_acquire);
    const pid_t process = getpid();
    if (pool && pool->process == process) return pool;
    Pool* const fresh = static_cast<Pool*>(calloc(1, sizeof(Pool)));
    if (!fresh) return nullptr;
    fresh->process = process;
    pthread_mutex_init(&fresh->lock, nullptr);
    pthread_cond_init(&fresh->wake, nullptr);
    pthread_cond_init(&fresh->done, nullptr);
    if (current.compare_exchange_strong(pool, fresh)) return fresh;
    free(fresh);
    return pool;  // another thread of this process was first
}

// Under the lock. A thread that cannot be had is done without.
void grow(Pool& pool, int64_t workers) {
    while (pool.workers < workers && pool.workers < kMaxWorkers) {
        pthread_t thread;
        if (pthread_create(&thread, nullptr, serve, &pool) != 0) return;
        pthread_detach(thread);
        ++pool.workers;
    }
}

}  // namespace

void use_openmp(Region entry) {
    region_process = getpid();
    region.store(entry, std::memory_order_release);
}

void parallel(int64_t threads, int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
    const int64_t shares = (count + grain - 1) / grain;
    const Region openmp = threads > 1 && shares > 1 ? region.load(std::memory_order_acquire) : nullptr;
    if (openmp && region_process == getpid()) {
        Job job{body, context, count, grain, {0}, 0, 0, nullptr};
        // All threads even where fewer would do: of a smaller team GNU's run-time ends the rest and starts them anew.
        return openmp(help, &job, (unsigned)threads, 0);
    }
    if (threads > shares) threads = shares;
    Pool* const pool = threads > 1 ? get_pool() : nullptr;
    if (!pool) return body(context, 0, count);
    Job job{body, context, count, grain, {0}, threads - 1, 0, nullptr};
    pthread_mutex_lock(&pool->lock);
    grow(*pool, threads - 1);
    job.following = pool->jobs;
    pool->jobs = &job;
    if (threads == 2)
        pthread_cond_signal(&pool->wake);
    else
        pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    job.work();
    pthread_mutex_lock(&pool->lock);
    job.wanted = 0;
    Job** link = &pool->jobs;
    while (*link != &job) link = &(*link)->following;
    *link = job.following;
    while (job.working) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
