/* What bench/simulate plays, and tests/unit/migration/test_simulate.c expects of it. */
#pragma once
#include "simulate.h"

enum { SIM_CASES_MAX = 32 };

#define SIM_1G  (118e6)
#define SIM_10G (1180e6)

/* One hart, the rest of 512 MiB zero. */
static inline struct sim_case sim_one_hart(const char *name, const char *about, struct sim_phase phase,
                                           struct sim_link link, double limit_ms)
{
    return (struct sim_case){ .name = name,
                              .about = about,
                              .guest = { .harts = 1,
                                         .hart = { { .phases = 1, .phase = { phase } } },
                                         .zero_pages = 65536,
                                         .page_bytes = 4100,
                                         .write_ns = 4000,
                                         .late_ms = 10 },
                              .link = link,
                              .limit_ms = limit_ms,
                              .on_stall = CONVERGE_STALL_GIVE_UP };
}

static inline struct sim_case sim_ends(struct sim_case c, double alone_s, double held_s)
{
    c.alone_s = alone_s;
    c.held_s = held_s;
    return c;
}

/* About: a Debian guest's own curve at a shell prompt, the pages that it dirties within so many ms. */
static inline struct sim_phase sim_debian_idle(void)
{
    static const double point[][2] = { { 10, 20 }, { 100, 90 }, { 1000, 330 }, { 10000, 900 } };
    return sim_curve(point, 4);
}

static inline unsigned sim_cases(struct sim_case out[SIM_CASES_MAX])
{
    const struct sim_link gbit = { .bytes_per_s = SIM_1G, .rtt_ms = 0.1 },
                          fast = { .bytes_per_s = SIM_10G, .rtt_ms = 0.1 };
    const struct sim_link cap100 = { .bytes_per_s = SIM_10G, .cap_bytes_per_s = 100 * SIM_MIB, .rtt_ms = 0.1 };
    struct sim_link far = gbit, jitter = gbit, stalls = gbit;
    unsigned n = 0;

    far.rtt_ms = 50;
    jitter.rtt_ms = 10, jitter.jitter = 0.5;
    stalls.stall_every_ms = 500, stalls.stall_ms = 200; /* when to stop by them is luck */

    out[n++] = sim_ends(sim_one_hart("idle", "a recorded curve of an idle Debian", sim_debian_idle(), gbit, 30), 1, 1);
    out[n - 1].guest.still_pages = 20000;
    out[n++] = sim_ends(sim_one_hart("slow", "50 MiB/s over 64 MiB", sim_uniform(64, 50), gbit, 30), 5, 5);
    out[n++] = sim_ends(sim_one_hart("hot-small", "flat out over 8 MiB", sim_uniform(8, 900), gbit, 300), 2, 2);
    out[n++] = sim_ends(sim_one_hart("fast-link", "200 MiB/s over 1 GiB", sim_uniform(1024, 200), fast, 100), 5, 5);
    out[n++] = sim_ends(
        sim_one_hart("cap", "200 MiB/s over 256 MiB through a cap of 100 MiB/s", sim_uniform(256, 200), cap100, 100), 0,
        8);
    struct sim_link busy_cap = cap100;
    busy_cap.bytes_per_s = 450e6, busy_cap.probe_ms = 60; /* as on loopback, between two processes of one busy host */
    out[n++] = sim_ends(sim_one_hart("cap-busy", "the same, and a pause that carries 450 MB/s; trains that take 60 ms",
                                     sim_uniform(256, 200), busy_cap, 100),
                        0, 8);
    struct sim_link street = gbit;
    street.bytes_per_s = 290e6;
    out[n++] = sim_ends(sim_one_hart("wide", "400 MiB/s over 1 GiB, and the street carries 290 MB/s",
                                     sim_uniform(1024, 400), street, 300),
                        0, 30);
    out[n++] = sim_ends(sim_one_hart("wide-30", "the same", sim_uniform(1024, 400), street, 30), 0, 30);
    struct sim_link cap_of_400 = cap100;
    cap_of_400.bytes_per_s = 400e6;
    out[n++] = sim_ends(sim_one_hart("cap-400", "the same, and the link gives no more than 400 MB/s without",
                                     sim_uniform(256, 200), cap_of_400, 100),
                        0, 8);
    out[n++] = sim_ends(sim_one_hart("cap-index", "the same, and 64 pages more that every write touches",
                                     sim_uniform(256, 200), cap100, 100),
                        0, 8);
    out[n - 1].guest.hart[0].phase[0].groups = 2;
    out[n - 1].guest.hart[0].phase[0].group[1] = (struct sim_group){ 64, 51200 };
    out[n - 1].guest.write_ns = 2000;
    out[n++] =
        sim_ends(sim_one_hart("link", "200 MiB/s over 256 MiB over 1 Gbit/s", sim_uniform(256, 200), gbit, 300), 0, 10);
    out[n++] = sim_ends(
        sim_one_hart("hot-set", "150 MiB/s, 9 of 10 to 64 of 512 MiB", sim_hot_set(512, 64, 0.9, 150), gbit, 300), 8,
        8);
    out[n++] = sim_ends(
        sim_one_hart("zipf", "80,000 pages a second, Zipf over 256 MiB", sim_zipf(256, 80000), gbit, 300), 6, 5);
    out[n++] = sim_ends(sim_one_hart("too-fast", "400 MiB/s over 256 MiB, cap 100: half of it is too much",
                                     sim_uniform(256, 400), cap100, 100),
                        0, 0);
    out[n++] = sim_ends(
        sim_one_hart("too-fast-90", "the same, and nine tenths may be taken", sim_uniform(256, 400), cap100, 100), 0,
        12);
    out[n - 1].share_max = 0.9;
    out[n++] = sim_ends(sim_one_hart("phases", "200 MiB/s over 256 MiB, then over 32, by 5 s; cap 100",
                                     sim_uniform(256, 200), cap100, 100),
                        8, 7);
    out[n - 1].guest.hart[0].phases = 2;
    out[n - 1].guest.hart[0].phase_s = 5;
    out[n - 1].guest.hart[0].phase[1] = sim_uniform(32, 200);
    out[n++] = sim_ends(sim_one_hart("far", "40 MiB/s over 64 MiB, 50 ms away", sim_uniform(64, 40), far, 300), 5, 5);
    out[n++] = sim_ends(
        sim_one_hart("jitter", "60 MiB/s over 64 MiB, the rate half and half again", sim_uniform(64, 60), jitter, 300),
        6, 6);
    out[n++] = sim_ends(
        sim_one_hart("stalls", "30 MiB/s over 64 MiB, still for 0.2 of 0.5 s", sim_uniform(64, 30), stalls, 400), 6, 6);
    out[n - 1].ratio = 1.5;
    out[n++] = sim_ends(
        sim_one_hart("four", "4 harts, 200 MiB/s and three times 4 MiB/s, cap 100", sim_uniform(256, 200), cap100, 100),
        0, 12);
    for (unsigned i = 1; i < 4; i++)
        out[n - 1].guest.hart[i] = (struct sim_hart){ .phases = 1, .phase = { sim_uniform(32, 4) } };
    out[n - 1].guest.harts = 4;
    out[n - 1].ratio =
        1.3; /* at half its pace the hot one and the others dirty more than the cap clears: what is left hardly shrinks */
    out[n++] = sim_ends(
        sim_one_hart("hot-warm", "100,000 pages a second of 20 MiB, 65 MiB/s over 256 MiB beside: the hot ones wait",
                     sim_uniform(256, 65), gbit, 300),
        6, 5);
    out[n - 1].guest.hart[0].phase[0].groups = 2;
    out[n - 1].guest.hart[0].phase[0].group[1] = (struct sim_group){ 20 * 256, 100000 };
    assert(n <= SIM_CASES_MAX);
    return n;
}
