# Bare-metal guests: every tests/guest/*.c but lib.c becomes $(BUILD)/guest/NAME.elf.
# Run by: -bios none -kernel NAME.elf [-append "..."]

RISCV_CC     ?= riscv64-linux-gnu-gcc
GUEST_DIR    := tests/guest
GUEST_SRC    := $(filter-out $(GUEST_DIR)/lib.c,$(sort $(wildcard $(GUEST_DIR)/*.c)))
GUESTS       := $(GUEST_SRC:$(GUEST_DIR)/%.c=$(BUILD)/guest/%.elf)
# No vector or loop tricks: what a guest does to its memory should be what its source says.
GUEST_CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Wshadow -ffreestanding -fno-stack-protector -fno-pic -fno-pie \
                -fno-tree-loop-distribute-patterns -mcmodel=medany -march=rv64gc -mabi=lp64d
GUEST_LDFLAGS := -nostdlib -static -no-pie -Wl,-T,$(GUEST_DIR)/guest.ld -Wl,--build-id=none -Wl,--no-warn-rwx-segments

$(BUILD)/guest/%.o: $(GUEST_DIR)/%.c $(GUEST_DIR)/lib.h
	@mkdir -p $(@D)
	$(RISCV_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(BUILD)/guest/%.o: $(GUEST_DIR)/%.S
	@mkdir -p $(@D)
	$(RISCV_CC) $(GUEST_CFLAGS) -c -o $@ $<
$(BUILD)/guest/%.elf: $(BUILD)/guest/%.o $(BUILD)/guest/start.o $(BUILD)/guest/lib.o $(GUEST_DIR)/guest.ld
	$(RISCV_CC) $(GUEST_CFLAGS) $(GUEST_LDFLAGS) -o $@ $(filter %.o,$^)
.SECONDARY: $(GUEST_SRC:$(GUEST_DIR)/%.c=$(BUILD)/guest/%.o) $(BUILD)/guest/start.o $(BUILD)/guest/lib.o
