// What the digital units compute, with the bits of rpucluster/layers.py: one thread per element, or per sample.
// Vector b of a value starts b strides behind the first.

// e^value, as rpucluster/elementary.py does it.
__device__ __forceinline__ float exponential(float value) {
    float x = fminf(fmaxf(value, ELEMENTARY_EXP_MIN), ELEMENTARY_EXP_MAX);
    float n = (x * ELEMENTARY_INVERSE_LN2 + ELEMENTARY_ROUNDER) - ELEMENTARY_ROUNDER;
    float r = ((x - n * ELEMENTARY_LN2_HIGH) - n * ELEMENTARY_LN2_LOW) + 0.0f;
    float q = ELEMENTARY_EXP5;
    q = q * r + ELEMENTARY_EXP4;
    q = q * r + ELEMENTARY_EXP3;
    q = q * r + ELEMENTARY_EXP2;
    q = q * r + ELEMENTARY_EXP1;
    q = q * r + ELEMENTARY_EXP0;
    float power = __int_as_float(((int)n + 127) << 23);
    return value < ELEMENTARY_EXP_MIN ? 0.0f : (1.0f + (r + (r * r) * q)) * power;
}

__device__ __forceinline__ float hyperbolic_tangent(float y) {
    float size = fabsf(y), m = fminf(size, 1.0f), square = m * m;
    float q = LAYERS_TANH4;
    q = q * square + LAYERS_TANH3;
    q = q * square + LAYERS_TANH2;
    q = q * square + LAYERS_TANH1;
    q = q * square + LAYERS_TANH0;
    float e = exponential(fminf(size, -LAYERS_SIGMOID_LOWEST) * -2.0f);
    float value = size < LAYERS_TANH_LIMIT ? m + (m * square) * q : (1.0f - e) / (1.0f + e);
    return y < 0.0f ? -value : value;
}

// Sums in units of 2^-40 to float32, the bias added if there is one, and the activation function.
extern "C" __global__ void digital_activate(
    const i64* sums, i64 stride_in, const float* bias, int biased, int function, int vectors, int width, float* out,
    i64 stride_out, int* status, int mark
) {
    i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (i64)vectors * width || *status) return;
    i64 b = at / width, j = at % width;
    double value = (double)sums[b * stride_in + j] * FIXED_UNIT;
    if (!(fabs(value) < (double)FIXED_LIMIT)) fail(status, mark | OUT_OF_RANGE);
    float y = (float)value;
    if (biased) y = y + bias[j];
    if (function == LAYERS_SIGMOID) y = 1.0f / (1.0f + exponential(-fmaxf(y, LAYERS_SIGMOID_LOWEST)));
    if (function == LAYERS_TANH_CODE) y = hyperbolic_tangent(y);
    if (function == LAYERS_RELU) y = y > 0.0f ? y : 0.0f;
    out[b * stride_out + j] = y;
}

// The error before an activation function, from the activation and the error behind it.
extern "C" __global__ void digital_derive(
    const float* activation, i64 stride_a, const float* error, i64 stride_g, int function, int vectors, int width,
    float* delta, i64 stride_out
) {
    i64 at = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (i64)vectors * width) return;
    i64 b = at / width, j = at % width;
    float a = activation[b * stride_a + j], g = error[b * stride_g + j];
    if (function == LAYERS_SIGMOID) g = g * (a * (1.0f - a));
    if (function == LAYERS_TANH_CODE) g = g * (1.0f - a * a);
    if (function == LAYERS_RELU) g = a > 0.0f ? g : 0.0f;
    delta[b * stride_out + j] = g;
}

// Softmax and cross-entropy, a thread per sample, since the sum goes from left to right: the error, and of each sample its
// loss in nats and whether its label is on top.  `labels` are those of the samples, or of a data set that the clock names.
extern "C" __global__ void digital_score(
    const float* logits, i64 stride_in, const i64* labels, int indexed, const i64* clock, i64 first, int vectors,
    int width, float* error, i64 stride_out, double* losses, int* hits, const int* status
) {
    i64 b = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= vectors || *status) return;
    const float* y = logits + b * stride_in;
    float* out = error + b * stride_out;
    int top = 0;
    for (int j = 1; j < width; ++j)
        if (y[j] > y[top]) top = j;
    float most = y[top], total = 0.0f;
    for (int j = 0; j < width; ++j) {
        out[j] = exponential(y[j] - most);
        total += out[j];
    }
    for (int j = 0; j < width; ++j) out[j] = out[j] / total;
    i64 label = indexed ? ((const i64*)clock[CLOCK_Y])[sample_row(clock, first + b)] : labels[b];
    out[label] -= 1.0f;
    losses[b] = log((double)total) - (double)(y[label] - most);
    hits[b] = top == label;
}

// One warp: adds the scores of some samples up, in an order that is always the same.
extern "C" __global__ void digital_tally(
    int vectors, const double* losses, const int* hits, double* loss, u64* hit, const int* status
) {
    if (*status) return;
    double sum = 0.0;
    u64 count = 0;
    for (int b = threadIdx.x; b < vectors; b += 32) {
        sum += losses[b];
        count += hits[b];
    }
    for (int distance = 16; distance > 0; distance >>= 1) {
        sum += __shfl_xor_sync(WARP, sum, distance);
        count += __shfl_xor_sync(WARP, count, distance);
    }
    if (threadIdx.x != 0) return;
    *loss += sum;
    *hit += count;
}
