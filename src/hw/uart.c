/* ns16550a UART (PC16550D data sheet): byte registers, 16-byte FIFOs both ways, on a chardev.
 *
 * What the host end takes at once leaves the transmitter at once; what it refuses stays in the transmit FIFO,
 * THRE stays 0, and the chardev says when there is room again. Modem inputs are wired to "ready". */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hw/devices.h"

enum { UART_FIFO_BYTES = 16, UART_CLOCK_HZ = 3686400, UART_BYTES = 0x100 };
enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };
enum { IER_RDA = 0x01, IER_THRE = 0x02, IER_RLS = 0x04, IER_MSR = 0x08, IER_MASK = 0x0f };
enum {
    IIR_MSR = 0x00,
    IIR_NONE = 0x01,
    IIR_THRE = 0x02,
    IIR_RDA = 0x04,
    IIR_RLS = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_KEPT = 0xc9 };
enum { LCR_STOP = 0x04, LCR_PARITY = 0x08, LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_TERI = 0x04, MSR_DELTAS = 0x0f, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct uart_state {
    uint16_t divisor;
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t overrun;         /* LSR_OE */
    uint8_t thre_pending;    /* the "transmitter holding register empty" interrupt, until IIR read or THR write */
    uint8_t timeout_pending; /* received bytes below the trigger level have waited long enough */
    uint8_t rx_count, tx_count;
    uint8_t rx[UART_FIFO_BYTES], tx[UART_FIFO_BYTES]; /* oldest first */
    uint8_t spare[3];
    uint64_t timeout_ns; /* guest time of the receive timeout; TIMER_NEVER: none */
};

struct uart {
    struct device dev;
    /* fixed after new */
    struct irq_line irq;
    struct chardev *chardev;
    struct timers *timers;
    struct timer *timeout;
    /* under dev.lock */
    struct uart_state state;
    bool drained;
    /* Input that was on its way when the machine paused. Like bytes still in the host's terminal it stays on this
     * side, so it is no part of the state. */
    uint8_t held[UART_FIFO_BYTES];
    unsigned held_count;
};

static const struct field uart_fields[] = {
    FIELD_U16_OF(struct uart_state, divisor),
    FIELD_U8_MAX_OF(struct uart_state, ier, IER_MASK),
    FIELD_U8_OF(struct uart_state, fcr),
    FIELD_U8_OF(struct uart_state, lcr),
    FIELD_U8_MAX_OF(struct uart_state, mcr, MCR_MASK),
    FIELD_U8_OF(struct uart_state, msr),
    FIELD_U8_OF(struct uart_state, scr),
    FIELD_BOOL_OF(struct uart_state, overrun),
    FIELD_BOOL_OF(struct uart_state, thre_pending),
    FIELD_BOOL_OF(struct uart_state, timeout_pending),
    FIELD_U8_MAX_OF(struct uart_state, rx_count, UART_FIFO_BYTES),
    FIELD_U8_MAX_OF(struct uart_state, tx_count, UART_FIFO_BYTES),
    FIELD_BYTES_OF(struct uart_state, rx),
    FIELD_BYTES_OF(struct uart_state, tx),
    FIELD_DERIVED_OF(struct uart_state, spare),
    FIELD_U64_MAX_OF(struct uart_state, timeout_ns, TIMER_NEVER),
    FIELD_TABLE_END,
};

static unsigned fifo_bytes(const struct uart_state *s)
{
    return s->fcr & FCR_ENABLE ? UART_FIFO_BYTES : 1;
}

static int uart_validate(const void *object, struct err *err)
{
    const struct uart_state *s = object;
    if (s->rx_count > fifo_bytes(s) || s->tx_count > fifo_bytes(s))
        return err_set(err, -EPROTO, "%u received and %u unsent bytes do not fit FIFOs of %u", s->rx_count, s->tx_count,
                       fifo_bytes(s));
    return 0;
}

static const struct state_desc uart_desc = {
    .name = "godwit/uart",
    .version = 1,
    .min_version = 1,
    .object_size = sizeof(struct uart_state),
    .fields = uart_fields,
    .validate = uart_validate,
};

/* --- interrupts: the highest-priority source names itself in IIR ------------------------------------------ */

static unsigned rx_trigger(const struct uart_state *s)
{
    static const uint8_t levels[4] = { 1, 4, 8, 14 };
    return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

static uint8_t interrupt_id(const struct uart_state *s)
{
    if ((s->ier & IER_RLS) && s->overrun)
        return IIR_RLS;
    if ((s->ier & IER_RDA) && s->rx_count >= rx_trigger(s))
        return IIR_RDA;
    if ((s->ier & IER_RDA) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MSR) && (s->msr & MSR_DELTAS))
        return IIR_MSR;
    return IIR_NONE;
}

static void update_irq(struct uart *u)
{
    irq_set(&u->irq, interrupt_id(&u->state) != IIR_NONE);
}

/* --- receiving --------------------------------------------------------------------------------------------- */

/* Four character times, as the data sheet says. */
static int64_t timeout_after_ns(const struct uart_state *s)
{
    int64_t bits = 1 + 5 + (s->lcr & 3) + !!(s->lcr & LCR_PARITY) + (s->lcr & LCR_STOP ? 2 : 1);
    int64_t divisor = s->divisor ? s->divisor : 1;
    return 4 * bits * divisor * 16 * NS_PER_S / UART_CLOCK_HZ;
}

/* The receive FIFO changed: the timeout counts from now while something waits there. */
static void restart_timeout(struct uart *u)
{
    struct uart_state *s = &u->state;
    s->timeout_pending = 0;
    s->timeout_ns = TIMER_NEVER;
    if ((s->fcr & FCR_ENABLE) && s->rx_count)
        s->timeout_ns = (uint64_t)(timers_now_ns(u->timers) + timeout_after_ns(s));
    timer_set_ns(u->timeout, (int64_t)s->timeout_ns);
}

static void timeout_fired(void *opaque)
{
    struct uart *u = opaque;
    struct uart_state *s = &u->state;
    lock(&u->dev.lock);
    /* Drained: resume sets the timer again. Not yet: the guest moved the deadline while we were on our way. */
    if (!u->drained && s->timeout_ns != TIMER_NEVER) {
        if (timers_now_ns(u->timers) >= (int64_t)s->timeout_ns) {
            s->timeout_ns = TIMER_NEVER;
            s->timeout_pending = 1;
            update_irq(u);
        } else {
            timer_set_ns(u->timeout, (int64_t)s->timeout_ns);
        }
    }
    unlock(&u->dev.lock);
}

static void rx_push(struct uart *u, uint8_t byte)
{
    struct uart_state *s = &u->state;
    if (s->rx_count < fifo_bytes(s)) {
        s->rx[s->rx_count++] = byte;
        return;
    }
    s->overrun = 1;
    if (!(s->fcr & FCR_ENABLE))
        s->rx[0] = byte; /* without FIFOs the old byte is the one that is lost */
}

static uint8_t rx_pop(struct uart *u)
{
    struct uart_state *s = &u->state;
    uint8_t byte = s->rx[0];
    if (s->rx_count) {
        s->rx_count--;
        memmove(s->rx, s->rx + 1, s->rx_count);
        restart_timeout(u);
    }
    return byte;
}

static void take_held(struct uart *u)
{
    unsigned taken = 0;
    while (taken < u->held_count && u->state.rx_count < fifo_bytes(&u->state))
        rx_push(u, u->held[taken++]);
    if (!taken)
        return;
    u->held_count -= taken;
    memmove(u->held, u->held + taken, u->held_count);
    restart_timeout(u);
}

static size_t uart_can_receive(void *opaque)
{
    struct uart *u = opaque;
    lock(&u->dev.lock);
    size_t room = 0;
    if (!u->drained && !u->held_count && !(u->state.mcr & MCR_LOOP) && u->state.rx_count < fifo_bytes(&u->state))
        room = fifo_bytes(&u->state) - u->state.rx_count;
    unlock(&u->dev.lock);
    return room;
}

static void uart_receive(void *opaque, const uint8_t *data, size_t bytes)
{
    struct uart *u = opaque;
    lock(&u->dev.lock);
    size_t at = 0;
    /* The guest or a pause may have closed the way since can_receive said yes. */
    bool open = !u->drained && !(u->state.mcr & MCR_LOOP) && !u->held_count;
    while (open && at < bytes && u->state.rx_count < fifo_bytes(&u->state))
        rx_push(u, data[at++]);
    if (at && !u->drained) {
        restart_timeout(u);
        update_irq(u);
    }
    while (at < bytes && u->held_count < UART_FIFO_BYTES)
        u->held[u->held_count++] = data[at++];
    unlock(&u->dev.lock);
}

/* --- sending ----------------------------------------------------------------------------------------------- */

static void tx_flush(struct uart *u)
{
    struct uart_state *s = &u->state;
    if (!s->tx_count || u->drained)
        return;
    size_t taken = chardev_write(u->chardev, s->tx, s->tx_count);
    assert(taken <= s->tx_count);
    s->tx_count -= (uint8_t)taken;
    memmove(s->tx, s->tx + taken, s->tx_count);
    if (!s->tx_count)
        s->thre_pending = 1;
}

static void uart_writable(void *opaque)
{
    struct uart *u = opaque;
    lock(&u->dev.lock);
    tx_flush(u);
    if (!u->drained)
        update_irq(u);
    unlock(&u->dev.lock);
}

static void write_thr(struct uart *u, uint8_t byte)
{
    struct uart_state *s = &u->state;
    s->thre_pending = 0;
    if (s->mcr & MCR_LOOP) {
        rx_push(u, byte);
        restart_timeout(u);
        s->thre_pending = 1;
        return;
    }
    if (s->tx_count < fifo_bytes(s)) /* a guest that writes without THRE loses the byte, as on the chip */
        s->tx[s->tx_count++] = byte;
    tx_flush(u);
}

/* --- registers --------------------------------------------------------------------------------------------- */

static uint8_t modem_lines(const struct uart_state *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (uint8_t)((s->mcr & MCR_DTR ? MSR_DSR : 0) | (s->mcr & MCR_RTS ? MSR_CTS : 0) |
                     (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void update_modem(struct uart_state *s)
{
    uint8_t lines = modem_lines(s), was = s->msr & 0xf0, deltas = s->msr & MSR_DELTAS;
    uint8_t changed = (lines ^ was) >> 4;
    if (lines & MSR_RI)
        changed &= (uint8_t)~MSR_TERI; /* only the trailing edge of the ring indicator counts */
    s->msr = lines | deltas | changed;
}

static void write_fcr(struct uart *u, uint8_t value)
{
    struct uart_state *s = &u->state;
    bool toggled = (value ^ s->fcr) & FCR_ENABLE;
    s->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    if (toggled || (value & FCR_CLEAR_RX)) {
        s->rx_count = 0;
        restart_timeout(u);
    }
    if (toggled || (value & FCR_CLEAR_TX)) {
        if (s->tx_count)
            s->thre_pending = 1;
        s->tx_count = 0;
    }
}

static void write_ier(struct uart_state *s, uint8_t value)
{
    /* Enabling the interrupt with the transmitter empty raises it, also when IIR had cleared it before: drivers
     * test for chips that do not. */
    if ((value & ~s->ier & IER_THRE) && !s->tx_count)
        s->thre_pending = 1;
    s->ier = value & IER_MASK;
}

static uint8_t read_iir(struct uart_state *s)
{
    uint8_t id = interrupt_id(s);
    if (id == IIR_THRE)
        s->thre_pending = 0;
    return (uint8_t)(id | (s->fcr & FCR_ENABLE ? IIR_FIFOS : 0));
}

static uint8_t read_lsr(struct uart_state *s)
{
    uint8_t value = (s->rx_count ? LSR_DR : 0) | (s->overrun ? LSR_OE : 0) | (s->tx_count ? 0 : LSR_THRE | LSR_TEMT);
    s->overrun = 0;
    return value;
}

static uint8_t read_register(struct uart *u, uint64_t offset)
{
    struct uart_state *s = &u->state;
    uint8_t value;
    bool dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case REG_DATA: return dlab ? (uint8_t)s->divisor : rx_pop(u);
    case REG_IER: return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
    case REG_IIR_FCR: return read_iir(s);
    case REG_LCR: return s->lcr;
    case REG_MCR: return s->mcr;
    case REG_LSR: return read_lsr(s);
    case REG_MSR:
        value = s->msr;
        s->msr &= 0xf0;
        return value;
    case REG_SCR: return s->scr;
    default: return 0;
    }
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    struct uart *u = opaque;
    lock(&u->dev.lock);
    bool more_room = offset == REG_DATA && !(u->state.lcr & LCR_DLAB);
    uint8_t value = read_register(u, offset);
    if (more_room && u->held_count)
        take_held(u);
    update_irq(u);
    unlock(&u->dev.lock);
    if (more_room)
        chardev_accept_input(u->chardev);
    return value;
}

static void write_register(struct uart *u, uint64_t offset, uint8_t value)
{
    struct uart_state *s = &u->state;
    bool dlab = s->lcr & LCR_DLAB;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff00) | value);
        else
            write_thr(u, value);
        break;
    case REG_IER:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff) | value << 8);
        else
            write_ier(s, value);
        break;
    case REG_IIR_FCR: write_fcr(u, value); break;
    case REG_LCR: s->lcr = value; break;
    case REG_MCR:
        s->mcr = value & MCR_MASK;
        update_modem(s);
        break;
    case REG_SCR: s->scr = value; break;
    default: break; /* LSR and MSR are read-only */
    }
}

static void uart_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    struct uart *u = opaque;
    lock(&u->dev.lock);
    write_register(u, offset, (uint8_t)value);
    /* Emptying the FIFO and leaving loopback open the way for input. */
    bool more_room = offset == REG_IIR_FCR || offset == REG_MCR;
    if (more_room && u->held_count && !(u->state.mcr & MCR_LOOP))
        take_held(u);
    update_irq(u);
    unlock(&u->dev.lock);
    if (more_room)
        chardev_accept_input(u->chardev);
}

/* --- life -------------------------------------------------------------------------------------------------- */

static void *uart_state_object(struct device *dev)
{
    return &((struct uart *)dev)->state;
}

static void uart_reset(struct device *dev)
{
    struct uart *u = (struct uart *)dev;
    lock(&dev->lock);
    u->state = (struct uart_state){ .divisor = 12, .timeout_ns = TIMER_NEVER };
    u->state.msr = modem_lines(&u->state);
    u->held_count = 0;
    timer_set_ns(u->timeout, TIMER_NEVER);
    update_irq(u);
    unlock(&dev->lock);
}

static void uart_loaded(struct device *dev)
{
    struct uart *u = (struct uart *)dev;
    lock(&dev->lock);
    timer_set_ns(u->timeout, (int64_t)u->state.timeout_ns);
    update_irq(u);
    unlock(&dev->lock);
}

static void uart_drain(struct device *dev)
{
    struct uart *u = (struct uart *)dev;
    lock(&dev->lock);
    u->drained = true;
    unlock(&dev->lock);
}

static void uart_resume(struct device *dev)
{
    struct uart *u = (struct uart *)dev;
    lock(&dev->lock);
    u->drained = false;
    if (!(u->state.mcr & MCR_LOOP))
        take_held(u);
    timer_set_ns(u->timeout, (int64_t)u->state.timeout_ns);
    tx_flush(u);
    update_irq(u);
    unlock(&dev->lock);
    chardev_accept_input(u->chardev);
}

static void uart_free(struct device *dev)
{
    struct uart *u = (struct uart *)dev;
    chardev_attach(u->chardev, NULL, NULL);
    timer_free(u->timeout);
    lock_destroy(&dev->lock);
    free(u);
}

static const struct bus_ops uart_bus = { .read = uart_read, .write = uart_write, .min_bytes = 1, .max_bytes = 1 };

static const struct device_ops uart_ops = {
    .name = "ns16550a",
    .state = &uart_desc,
    .bus = &uart_bus,
    .state_object = uart_state_object,
    .reset = uart_reset,
    .loaded = uart_loaded,
    .drain = uart_drain,
    .resume = uart_resume,
    .free = uart_free,
};

static const struct chardev_client uart_client = {
    .can_receive = uart_can_receive,
    .receive = uart_receive,
    .writable = uart_writable,
};

struct device *uart_new(struct irq_line irq, struct chardev *chardev, struct timers *timers, struct err *err)
{
    struct uart *u = calloc(1, sizeof(*u));
    if (!u) {
        err_set(err, -ENOMEM, "no memory for the UART");
        return NULL;
    }
    device_init(&u->dev, &uart_ops, LOCK_DEVICE);
    u->dev.bytes = UART_BYTES;
    u->irq = irq;
    u->chardev = chardev;
    u->timers = timers;
    u->timeout = timer_new(timers, timeout_fired, u);
    uart_reset(&u->dev);
    chardev_attach(chardev, &uart_client, u);
    return &u->dev;
}
