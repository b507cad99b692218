/* A token bucket over true wire bytes. Pure: now comes as an argument, and nothing waits.
 *
 * The bucket holds at most RATE_BURST_NS worth of the cap (but always one smallest piece), so that a pause in
 * sending is not made up for by a burst that the network did not agree to. Owner: the thread that writes. */
#pragma once
#include <stdint.h>

enum { RATE_BURST_NS = 10 * 1000 * 1000, RATE_PIECE_MIN = 4096, RATE_PIECE_MAX = 256 * 1024 };

struct rate {
    uint64_t bytes_per_s; /* 0: no cap */
    uint64_t burst_bytes;
    uint64_t tokens;    /* bytes that may go now */
    uint64_t remainder; /* of a byte, in 1/1e9 */
    int64_t at_ns;      /* tokens are right for this moment */
};

void rate_init(struct rate *rate, int64_t now_ns);
/* The cap, as it is now; what was saved up is kept, within the new burst. */
void rate_set(struct rate *rate, uint64_t bytes_per_s, int64_t now_ns);
/* The most that one rate_take() may ask for. */
uint64_t rate_piece(const struct rate *rate);
/* 0: taken, write them. Else nothing was taken: ask again after so many nanoseconds. */
int64_t rate_take(struct rate *rate, uint64_t bytes, int64_t now_ns);
void rate_give_back(struct rate *rate, uint64_t bytes); /* taken, but the channel did not want them */
