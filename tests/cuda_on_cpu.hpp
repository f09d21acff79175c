// Runs CUDA kernels on the CPU: the threads of a block as fibers that meet at warp-wide and block-wide operations, one
// block after the other.  Enough for kernels whose blocks talk only through atomics.

#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <cstddef>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static  // there is one block at a time
#define __align__(bytes) __attribute__((aligned(bytes)))

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

static inline int max(int a, int b) { return a > b ? a : b; }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __ffs(unsigned v) { return __builtin_ffs((int)v); }
static inline int __float_as_int(float v) { int r; memcpy(&r, &v, 4); return r; }
static inline float __int_as_float(int v) { float r; memcpy(&r, &v, 4); return r; }
template <class T> static inline T atomicAdd(T* place, T value) { T old = *place; *place += value; return old; }
static inline int atomicCAS(int* place, int expected, int value) {
    int old = *place;
    if (old == expected) *place = value;
    return old;
}

// The fibers live for ever and take one body after the other.  They are started by swapcontext, but switched by
// longjmp, which needs no system call.
namespace block {
const unsigned MOST = 1024;
const std::size_t STACK = 1 << 16;
ucontext_t starter, start[MOST];
jmp_buf scheduler, fiber[MOST];
char stacks[MOST][STACK];
bool started[MOST], finished[MOST];
unsigned thread, threads;        // the fiber that runs, and how many the block has
unsigned turn[MOST];             // how many meetings of its warp each has been to
unsigned arrivals, generation;   // of a meeting of the block
unsigned ended;                  // threads that have
unsigned long long posted[2][MOST];
void (*body)(void*);
void* argument;

void yield() {
    if (_setjmp(fiber[thread]) == 0) _longjmp(scheduler, 1);
}

void live() {
    for (;;) {
        body(argument);
        finished[thread] = true;
        ++ended;
        yield();
    }
}

void resume() {
    if (_setjmp(scheduler) != 0) return;
    if (started[thread]) _longjmp(fiber[thread], 1);
    started[thread] = true;
    getcontext(&start[thread]);
    start[thread].uc_stack.ss_sp = stacks[thread];
    start[thread].uc_stack.ss_size = STACK;
    start[thread].uc_link = &starter;
    makecontext(&start[thread], live, 0);
    swapcontext(&starter, &start[thread]);
}

// Leaves a value for the others of the warp and waits until all have; two sets, since a fast one posts its next early.
unsigned meet(unsigned long long value) {
    unsigned me = thread, first = me & ~31u, mine = ++turn[me];
    posted[mine & 1][me] = value;
    for (unsigned other = first; other < first + 32 && other < threads; ++other)
        while (!finished[other] && turn[other] < mine) yield();
    return mine & 1;
}

void meet_all() {
    unsigned before = generation;
    ++arrivals;
    while (generation == before) {
        if (arrivals >= threads - ended) {
            arrivals = 0;
            ++generation;
        } else {
            yield();
        }
    }
}

void run(unsigned count) {
    threads = count;
    arrivals = ended = 0;
    for (unsigned t = 0; t < (count + 31) / 32 * 32; ++t) {
        posted[0][t] = posted[1][t] = turn[t] = 0;
        finished[t] = t >= count;
    }
    for (bool active = true; active;) {
        active = false;
        for (thread = 0; thread < threads; ++thread) {
            if (finished[thread]) continue;
            active = true;
            threadIdx.x = thread % blockDim.x;
            threadIdx.y = thread / blockDim.x;
            resume();
        }
    }
}
}  // namespace block

static inline void __syncthreads() { block::meet_all(); }
static inline void __syncwarp(unsigned) { block::meet(0); }
static inline unsigned __ballot_sync(unsigned, int vote) {
    unsigned set = block::meet(vote != 0), result = 0, first = block::thread & ~31u;
    for (unsigned l = 0; l < 32; ++l) result |= (unsigned)block::posted[set][first + l] << l;
    return result;
}
// What a lane posts, as another one of the warp gets it.
template <class T> static inline T from_lane(T value, unsigned other) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    unsigned set = block::meet(bits);
    T result;
    memcpy(&result, &block::posted[set][(block::thread & ~31u) + other], sizeof value);
    return result;
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int distance) {
    return from_lane(value, block::thread % 32 ^ distance);
}
template <class T> static inline T __shfl_up_sync(unsigned, T value, int distance) {
    unsigned lane = block::thread % 32;
    return from_lane(value, lane < (unsigned)distance ? lane : lane - distance);
}
template <class T> static inline T __shfl_sync(unsigned, T value, int lane) { return from_lane(value, lane); }

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

// What cuLaunchKernel does, for one kernel: arguments are pointers to the values.
template <class... A>
void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* shape, void** arguments) {
    static std::tuple<void (*)(A...), void**> task;
    task = std::make_tuple(kernel, arguments);
    block::argument = &task;
    block::body = [](void* data) {
        auto& [function, values] = *static_cast<std::tuple<void (*)(A...), void**>*>(data);
        call(function, values, std::index_sequence_for<A...>{});
    };
    gridDim = {grid[0], grid[1], 1};
    blockDim = {shape[0], shape[1], 1};
    for (unsigned y = 0; y < grid[1]; ++y)
        for (unsigned x = 0; x < grid[0]; ++x) {
            blockIdx = {x, y, 0};
            block::run(shape[0] * shape[1]);
        }
}
