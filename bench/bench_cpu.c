/* How fast guest instructions run: one hart in machine mode, no firmware. Prints millions of instructions per second.
 *
 *   bench_cpu [--interp] ...  by the interpreter alone
 *   bench_cpu            a built-in mix: a checksum loop, a list walk, a byte copy, a divide
 *   bench_cpu IMAGE      a flat binary for 0x80000000, which ends by a store to 0x100000 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "vcpu/jit/jit.h"
#include "vcpu/vcpu.h"

static const uint64_t RAM_AT = 0x80000000, RAM_SIZE = 64 << 20, EXIT_AT = 0x100000;

/* Assembled from:
 *       li s0, 20000000 ; la s1, data (0x80001000) ; li a0, 1
 *  1:   andi t0, s0, 1023 ; slli t0, t0, 3 ; add t0, t0, s1 ; ld t1, 0(t0) ; xor a0, a0, t1 ; slli t2, a0, 13
 *       xor a0, a0, t2 ; srli t2, a0, 7 ; xor a0, a0, t2 ; sd a0, 0(t0) ; bltz a0, 2f ; addi a0, a0, 3
 *  2:   addi s0, s0, -1 ; bnez s0, 1b
 *       li t0, 0x100000 ; sw x0, 0(t0) ; j . */
static const uint32_t MIX[] = {
    0x01313437, 0xd0040413, 0x800014b7, 0x02049493, 0x0204d493, 0x00100513, 0x3ff47293, 0x00329293,
    0x009282b3, 0x0002b303, 0x00654533, 0x00d51393, 0x00754533, 0x00755393, 0x00754533, 0x00a2b023,
    0x00054463, 0x00350513, 0xfff40413, 0xfc0416e3, 0x001002b7, 0x0002a023, 0x0000006f,
};

struct end {
    struct lock lock;
    struct cond cond;
    bool reached;
    uint64_t value;
};

static uint64_t end_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

static void end_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct end *end = device;

    (void)offset, (void)size;
    lock(&end->lock);
    end->reached = true;
    end->value = value;
    cond_broadcast(&end->cond);
    unlock(&end->lock);
}

static const struct bus_ops END_OPS = { end_read, end_write, 1, 8 };

static bool load_image(struct ram *ram, const char *path)
{
    FILE *file = fopen(path, "rb");
    static uint8_t image[16 << 20];

    if (!file)
        return false;
    size_t bytes = fread(image, 1, sizeof(image), file);
    fclose(file);
    return bytes > 0 && ram_load(ram, RAM_AT, image, bytes);
}

static void run(struct vcpu *vcpu, struct end *end)
{
    struct vcpu_stats stats;
    int64_t began = clock_now_ns();

    vcpu_resume(vcpu);
    lock(&end->lock);
    while (!end->reached)
        cond_wait(&end->cond, &end->lock);
    unlock(&end->lock);
    vcpu_pause_request(vcpu);
    vcpu_pause_wait(vcpu);
    double seconds = (double)(clock_now_ns() - began) / (double)NS_PER_S;
    vcpu_stats(vcpu, &stats);
    double cpu = (double)stats.cpu_ns / (double)NS_PER_S;
    printf("%12" PRIu64 " instructions  %6.2f s  %7.1f MIPS (%.1f by CPU time)  result %" PRIx64 "\n",
           stats.instructions, seconds, (double)stats.instructions / seconds / 1e6,
           (double)stats.instructions / cpu / 1e6, end->value);
}

int main(int argc, char **argv)
{
    struct guest_clock clock;
    struct end end = { .reached = false };
    struct ram *ram = ram_new();
    struct bus bus;
    struct err err = { 0 };
    struct jit *jit = NULL;
    bool interpret = argc > 1 && strcmp(argv[1], "--interp") == 0;

    argv += interpret;
    argc -= interpret;

    guest_clock_init(&clock);
    lock_init(&end.lock, LOCK_DEVICE);
    cond_init(&end.cond);
    struct timers *timers = timers_new(&clock, &err);
    if (!timers || ram_add(ram, "ram", RAM_AT, RAM_SIZE, false, &(struct ram_options){ 0 }, &err) < 0 ||
        ram_seal_layout(ram, &err) < 0)
        goto failed;
    bus_init(&bus, ram);
    if (bus_add(&bus, "end", EXIT_AT, 0x1000, &END_OPS, &end, &err) < 0)
        goto failed;
    if (argc > 1 ? !load_image(ram, argv[1]) : !ram_load(ram, RAM_AT, MIX, sizeof(MIX))) {
        err_set(&err, -1, "cannot load the image");
        goto failed;
    }
    if (!interpret && jit_new(&jit, &(struct jit_config){ .ram = ram }, &err) < 0)
        goto failed;
    struct vcpu_config config = { .bus = &bus, .clock = &clock, .timers = timers, .jit = jit };
    struct vcpu *vcpu = vcpu_new(&config, &err);
    if (!vcpu || vcpu_start(vcpu, &err) < 0)
        goto failed;
    vcpu_pause_wait(vcpu);
    hart_reset(vcpu_hart(vcpu), 0, RAM_AT);
    guest_clock_start(&clock);
    timers_clock_changed(timers);
    run(vcpu, &end);
    vcpu_free(vcpu);
    jit_free(jit);
    timers_free(timers);
    ram_free(ram);
    return 0;
failed:
    fprintf(stderr, "bench_cpu: %s\n", err.text);
    return 1;
}
