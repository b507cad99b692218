/* Migrations on paper, by the controller as it is: how long, how well foreseen, and what the harts keep. Seconds for all.
 *
 *   simulate [CASE...]                cases of bench/simulate_cases.h, each alone and throttled; without a name: all
 *   simulate --curve FILE [OPTIONS]   a recorded W(t): lines of "MS PAGES", both rising
 *     --limit MS --link MBIT --cap MIB --rtt MS --share PERCENT --still MIB
 *   simulate --trace FILE...          recorded migrations (bench/record.py): as it went, the best moment to stop, the controller's */
#include <getopt.h>

#include "simulate_cases.h"
#include "trace.h"

static void print_head(void)
{
    printf("%-12s %-5s %-9s %7s %7s %15s %7s %6s %7s %8s  %s\n", "case", "", "end", "total s", "asked", "foreseen",
           "got ms", "ratio", "rounds", "wire MiB", "work kept by hart (worst 100 ms), held");
}

static void play(const struct sim_case *c, bool throttles)
{
    struct sim_result r = sim_play(c, throttles);
    char end[16], foreseen[40];

    snprintf(foreseen, sizeof(foreseen), "%.0f (%.0f..%.0f)", r.predicted_ms, r.lower_ms, r.upper_ms);
    snprintf(end, sizeof(end), "%s%s",
             r.completed ? "moved"
             : r.gave_up ? "given up"
                         : "no end",
             r.overruns ? "*" : "");
    printf("%-12s %-5s %-9s %7.2f %7.0f %15s %7.1f %6.2f %7u %8.0f ", c->name, throttles ? "held" : "alone", end,
           r.total_s, c->limit_ms, foreseen, r.completed ? r.got_ms : 0, r.completed ? r.total_s / r.best_s : 0,
           r.rounds, r.wire_mib);
    for (unsigned i = 0; i < c->guest.harts; i++)
        printf(" %3.0f%% (%.0f%%) %.0f%%", r.work[i] * 100, r.worst[i] * 100, r.held[i] * 100);
    printf("\n");
}

static bool read_point(const char *line, double point[2])
{
    char *end = NULL;

    for (unsigned i = 0; i < 2; i++, line = end) {
        point[i] = strtod(line, &end);
        if (end == line)
            return false;
    }
    return end[strspn(end, " \t\r\n")] == '\0';
}

static unsigned read_curve(const char *path, double (*point)[2], unsigned max)
{
    FILE *in = fopen(path, "r");
    const char *wrong = NULL;
    char line[256];
    unsigned n = 0;

    if (!in) {
        perror(path);
        exit(1);
    }
    while (!wrong && fgets(line, sizeof(line), in)) {
        if (n == max)
            wrong = "too many lines";
        else if (!read_point(line, point[n]))
            wrong = "two numbers are wanted, MS and PAGES";
        else if (n && (point[n][0] <= point[n - 1][0] || point[n][1] < point[n - 1][1]))
            wrong = "times and pages must rise";
        n++;
    }
    fclose(in);
    if (n == 0)
        wrong = "there is nothing in it";
    if (wrong) {
        fprintf(stderr, "%s: line %u: %s\n", path, n, wrong);
        exit(1);
    }
    return n;
}

static int play_curve(const char *path, struct sim_case c)
{
    double point[SIM_GROUPS][2];

    c.guest.hart[0].phase[0] = sim_curve((const double(*)[2])point, read_curve(path, point, SIM_GROUPS));
    print_head();
    play(&c, false);
    play(&c, true);
    return 0;
}

static int replay(char **paths, int count)
{
    static struct trace trace;
    char why[256];

    printf("%-40s %7s %9s %9s %9s %6s %11s %6s\n", "trace", "asked", "pause ms", "total s", "best s", "ratio",
           "controller", "ratio");
    for (int i = 0; i < count; i++) {
        if (trace_read(paths[i], &trace, why, sizeof(why)) < 0) {
            fprintf(stderr, "%s\n", why);
            return 1;
        }
        struct trace_stop best = trace_best(&trace), stop = trace_controller(&trace);
        printf("%-40s %7.0f %9.1f %9.2f %9.2f %6.2f %11.2f %6.2f\n", paths[i], trace.limit_ms, trace.pause_ms,
               trace.total_ms / 1e3, best.total_ms / 1e3, trace.total_ms / best.total_ms, stop.total_ms / 1e3,
               stop.total_ms / best.total_ms);
    }
    return 0;
}

int main(int argc, char **argv)
{
    enum { CURVE, LIMIT, LINK, CAP, RTT, SHARE, STILL, TRACE };
    static const struct option options[] = {
        { "curve", 1, NULL, CURVE }, { "limit", 1, NULL, LIMIT }, { "link", 1, NULL, LINK },
        { "cap", 1, NULL, CAP },     { "trace", 0, NULL, TRACE }, { "rtt", 1, NULL, RTT },
        { "share", 1, NULL, SHARE }, { "still", 1, NULL, STILL }, { 0 },
    };
    struct sim_link gbit = { .bytes_per_s = SIM_1G, .rtt_ms = 0.1 };
    struct sim_case mine = sim_one_hart("curve", "", (struct sim_phase){ 0 }, gbit, 300), all[SIM_CASES_MAX];
    const char *curve = NULL;
    bool traces = false;

    for (int which; (which = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        double value = which == '?' || which == CURVE || which == TRACE ? 0 : strtod(optarg, NULL);
        switch (which) {
        case CURVE: curve = optarg; break;
        case LIMIT: mine.limit_ms = value; break;
        case LINK: mine.link.bytes_per_s = value * 125000 * 0.945; break; /* less TCP's and IP's headers */
        case CAP: mine.link.cap_bytes_per_s = value * SIM_MIB; break;
        case RTT: mine.link.rtt_ms = value; break;
        case SHARE: mine.share_max = value / 100; break;
        case STILL: mine.guest.still_pages = value * 256; break;
        case TRACE: traces = true; break;
        default: return 2;
        }
    }
    if (traces)
        return replay(argv + optind, argc - optind);
    if (curve)
        return play_curve(curve, mine);
    unsigned cases = sim_cases(all), played = 0;
    print_head();
    for (unsigned i = 0; i < cases; i++) {
        bool wanted = optind == argc;
        for (int a = optind; a < argc; a++)
            wanted = wanted || strcmp(argv[a], all[i].name) == 0;
        if (!wanted)
            continue;
        play(&all[i], false);
        play(&all[i], true);
        played++;
    }
    if (!played)
        fprintf(stderr, "no such case\n");
    return played ? 0 : 2;
}
