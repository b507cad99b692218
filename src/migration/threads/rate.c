#include "migration/threads/rate.h"

#include <assert.h>

#include "base/clock.h"

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

void rate_init(struct rate *rate, int64_t now_ns)
{
    *rate = (struct rate){ .at_ns = now_ns };
}

static void refill(struct rate *rate, int64_t now_ns)
{
    int64_t passed = now_ns - rate->at_ns;

    if (passed <= 0) {
        return;
    }
    unsigned __int128 parts = (unsigned __int128)passed * rate->bytes_per_s + rate->remainder;
    unsigned __int128 tokens = rate->tokens + parts / NS_PER_S;
    rate->at_ns = now_ns;
    if (tokens >= rate->burst_bytes) {
        rate->tokens = rate->burst_bytes;
        rate->remainder = 0;
    } else {
        rate->tokens = (uint64_t)tokens;
        rate->remainder = (uint64_t)(parts % NS_PER_S);
    }
}

void rate_set(struct rate *rate, uint64_t bytes_per_s, int64_t now_ns)
{
    if (bytes_per_s == rate->bytes_per_s) {
        return;
    }
    refill(rate, now_ns);
    rate->at_ns = now_ns;
    rate->bytes_per_s = bytes_per_s;
    rate->remainder = 0;
    rate->burst_bytes = (uint64_t)clamp(bytes_per_s / (NS_PER_S / RATE_BURST_NS), RATE_PIECE_MIN, UINT64_MAX / 2);
    if (rate->tokens > rate->burst_bytes) {
        rate->tokens = rate->burst_bytes;
    }
}

uint64_t rate_piece(const struct rate *rate)
{
    if (!rate->bytes_per_s) {
        return UINT64_MAX;
    }
    return clamp(rate->burst_bytes / 2, RATE_PIECE_MIN, RATE_PIECE_MAX);
}

int64_t rate_take(struct rate *rate, uint64_t bytes, int64_t now_ns)
{
    if (!rate->bytes_per_s) {
        return 0;
    }
    assert(bytes <= rate_piece(rate));
    refill(rate, now_ns);
    if (rate->tokens >= bytes) {
        rate->tokens -= bytes;
        return 0;
    }
    unsigned __int128 missing = (unsigned __int128)(bytes - rate->tokens) * NS_PER_S - rate->remainder;
    unsigned __int128 wait = (missing + rate->bytes_per_s - 1) / rate->bytes_per_s;
    return wait > INT64_MAX ? INT64_MAX : (int64_t)wait;
}

void rate_give_back(struct rate *rate, uint64_t bytes)
{
    if (rate->bytes_per_s) {
        rate->tokens = clamp(rate->tokens + bytes, 0, rate->burst_bytes);
    }
}
