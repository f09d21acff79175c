// Runs CUDA kernels on the CPU: each warp as 32 fibers that meet at warp-wide operations, one warp after the other.
// Enough for kernels that talk only within a warp and through atomics.

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

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

static inline int max(int a, int b) { return a > b ? a : b; }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __float_as_int(float v) { int r; memcpy(&r, &v, 4); return r; }
static inline float __int_as_float(int v) { float r; memcpy(&r, &v, 4); return r; }
template <class T> static inline T atomicAdd(T* place, T value) { T old = *place; *place += value; return old; }

// The fibers live for ever and take one body after the other.  They are started by swapcontext, but switched by
// longjmp, which needs no system call.
namespace warp {
const std::size_t STACK = 1 << 16;
ucontext_t starter, start[32];
jmp_buf scheduler, fiber[32];
char stacks[32][STACK];
bool started[32], finished[32];
unsigned lane;                 // the fiber that runs
unsigned turn[32];             // how many meetings each has been to
unsigned long long posted[2][32];
void (*body)(void*);
void* argument;

void yield() {
    if (_setjmp(fiber[lane]) == 0) _longjmp(scheduler, 1);
}

void live() {
    for (;;) {
        body(argument);
        finished[lane] = true;
        yield();
    }
}

void resume() {
    if (_setjmp(scheduler) != 0) return;
    if (started[lane]) _longjmp(fiber[lane], 1);
    started[lane] = true;
    getcontext(&start[lane]);
    start[lane].uc_stack.ss_sp = stacks[lane];
    start[lane].uc_stack.ss_size = STACK;
    start[lane].uc_link = &starter;
    makecontext(&start[lane], live, 0);
    swapcontext(&starter, &start[lane]);
}

// Leaves a value for the others and waits until all lanes have; two sets, since a fast lane posts its next one early.
unsigned meet(unsigned long long value) {
    unsigned set = turn[lane]++ & 1;
    posted[set][lane] = value;
    yield();
    return set;
}

void run(unsigned first_thread, unsigned threads) {
    memset(posted, 0, sizeof posted);
    memset(turn, 0, sizeof turn);
    for (unsigned l = 0; l < 32; ++l) finished[l] = l >= threads;
    for (bool alive = true; alive;) {
        alive = false;
        for (lane = 0; lane < 32; ++lane) {
            if (finished[lane]) continue;
            alive = true;
            threadIdx.x = (first_thread + lane) % blockDim.x;
            threadIdx.y = (first_thread + lane) / blockDim.x;
            resume();
        }
    }
}
}  // namespace warp

static inline void __syncwarp(unsigned) { warp::meet(0); }
static inline unsigned __ballot_sync(unsigned, int vote) {
    unsigned set = warp::meet(vote != 0), result = 0;
    for (int l = 0; l < 32; ++l) result |= (unsigned)warp::posted[set][l] << l;
    return result;
}
// What a lane posts, as another one of the warp gets it.
template <class T> static inline T from_lane(T value, unsigned other) {
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    unsigned set = warp::meet(bits);
    T result;
    memcpy(&result, &warp::posted[set][other], sizeof value);
    return result;
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int distance) {
    return from_lane(value, warp::lane ^ distance);
}
template <class T> static inline T __shfl_up_sync(unsigned, T value, int distance) {
    return from_lane(value, warp::lane < (unsigned)distance ? warp::lane : warp::lane - distance);
}
template <class T> static inline T __shfl_sync(unsigned, T value, int lane) { return from_lane(value, lane); }

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

// What cuLaunchKernel does, for one kernel: arguments are pointers to the values.
template <class... A>
void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** arguments) {
    static std::tuple<void (*)(A...), void**> task;
    task = std::make_tuple(kernel, arguments);
    warp::argument = &task;
    warp::body = [](void* data) {
        auto& [function, values] = *static_cast<std::tuple<void (*)(A...), void**>*>(data);
        call(function, values, std::index_sequence_for<A...>{});
    };
    gridDim = {grid[0], grid[1], 1};
    blockDim = {block[0], block[1], 1};
    unsigned threads = block[0] * block[1];
    for (unsigned y = 0; y < grid[1]; ++y)
        for (unsigned x = 0; x < grid[0]; ++x)
            for (unsigned first = 0; first < threads; first += 32) {
                blockIdx = {x, y, 0};
                warp::run(first, threads - first < 32 ? threads - first : 32);
            }
}
