// What a step needs besides reads, updates and digital units.  The clock says which samples it works on, so that a step is a
// list of launches whose arguments never change.

// The row of the data set that number `number` of this step's samples is.
__device__ __forceinline__ i64 sample_row(const i64* clock, i64 number) {
    return ((const i64*)clock[CLOCK_INDICES])[clock[CLOCK_PLACE] + number];
}

// One thread per element: inputs from the data set, from feature `feature` on.
extern "C" __global__ void step_load(
    const i64* clock, i64 first, i64 feature, int vectors, int width, float* out, i64 stride_out, const int* status
) {
    i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (i64)vectors * width || *status) return;
    i64 b = at / width, j = at % width;
    const float* x = (const float*)clock[CLOCK_X] + sample_row(clock, first + b) * clock[CLOCK_FEATURES];
    out[b * stride_out + j] = x[feature + j];
}

extern "C" __global__ void step_copy(
    const float* from, i64 stride_in, int vectors, int width, float* out, i64 stride_out, const int* status
) {
    i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (i64)vectors * width || *status) return;
    out[at / width * stride_out + at % width] = from[at / width * stride_in + at % width];
}

// One thread per digital bias: the errors of the batch are added one after the other.
extern "C" __global__ void step_bias(
    const float* errors, i64 stride, int vectors, int width, const float* rate, float* biases, const int* status
) {
    i64 j = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= width || *status) return;
    float total = errors[j];
    for (i64 b = 1; b < vectors; ++b) total += errors[b * stride + j];
    biases[j] = biases[j] - *rate * total;
}

// One thread: the next step's samples.
extern "C" __global__ void step_next(i64* clock) {
    clock[CLOCK_SAMPLE] += clock[CLOCK_BATCH];
    clock[CLOCK_PLACE] += clock[CLOCK_BATCH];
}
