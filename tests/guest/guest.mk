# Bare-metal guests: every tests/guest/*.c becomes $(BUILD)/guest/NAME.elf, but for lib.c and rand.c, the harness of
# rand_SEED.elf, whose instructions rand_isa.py makes.
# Run by: -bios none -kernel NAME.elf [-append "..."]

RISCV_CC     ?= riscv64-linux-gnu-gcc
GUEST_DIR    := tests/guest
GUEST_SRC    := $(filter-out $(GUEST_DIR)/lib.c $(GUEST_DIR)/rand.c,$(sort $(wildcard $(GUEST_DIR)/*.c)))
RAND_SEEDS   ?= 1 2 3
GUESTS       := $(GUEST_SRC:$(GUEST_DIR)/%.c=$(BUILD)/guest/%.elf) $(RAND_SEEDS:%=$(BUILD)/guest/rand_%.elf)
# No vector or loop tricks: what a guest does to its memory should be what its source says.
GUEST_CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Wshadow -ffreestanding -fno-stack-protector -fno-pic -fno-pie \
                -fno-tree-loop-distribute-patterns -mcmodel=medany -march=rv64gc -mabi=lp64d
GUEST_LDFLAGS := -nostdlib -static -no-pie -Wl,-T,$(GUEST_DIR)/guest.ld -Wl,--build-id=none -Wl,--no-warn-rwx-segments

$(BUILD)/guest/%.o: $(GUEST_DIR)/%.c $(GUEST_DIR)/lib.h
	@mkdir -p $(@D)
	$(RISCV_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(BUILD)/guest/dirtier.o: bench/guest/dirty.h
$(BUILD)/guest/%.o: $(GUEST_DIR)/%.S
	@mkdir -p $(@D)
	$(RISCV_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(BUILD)/guest/%.elf: $(BUILD)/guest/%.o $(BUILD)/guest/start.o $(BUILD)/guest/lib.o $(GUEST_DIR)/guest.ld
	$(RISCV_CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -o $@ $(filter %.o,$^)
$(BUILD)/guest/rand_%.S: $(GUEST_DIR)/rand_isa.py
	@mkdir -p $(@D)
	python3 $< --seed $* > $@
$(BUILD)/guest/rand_%.o: $(BUILD)/guest/rand_%.S
	$(RISCV_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(BUILD)/guest/rand_%.elf: $(BUILD)/guest/rand_%.o $(BUILD)/guest/rand.o $(BUILD)/guest/start.o $(BUILD)/guest/lib.o \
                           $(GUEST_DIR)/guest.ld
	$(RISCV_CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -o $@ $(filter %.o,$^)
.SECONDARY: $(BUILD)/guest/rand.o $(RAND_SEEDS:%=$(BUILD)/guest/rand_%.S) $(RAND_SEEDS:%=$(BUILD)/guest/rand_%.o)
.SECONDARY: $(GUEST_SRC:$(GUEST_DIR)/%.c=$(BUILD)/guest/%.o) $(BUILD)/guest/start.o $(BUILD)/guest/lib.o
