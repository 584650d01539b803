/* QEMU plugin: how many instructions of each class a program executed. Counts a translated block's instructions when the block is
 * translated, and the block's executions when it runs; the product is exact. Prints one line of class=count pairs to stderr at exit.
 *
 * Distributions ship no qemu-plugin.h, so what is used of it is declared here. PLUGIN_API is the version that the emulator speaks:
 * 1 up to QEMU 8, 4 from 9.1; only qemu_plugin_insn_data differs in what is used. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct tb;
struct insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct tb *);
struct insn *qemu_plugin_tb_get_insn(const struct tb *, size_t);
#if PLUGIN_API >= 3
size_t qemu_plugin_insn_data(const struct insn *, void *, size_t);
#else
const void *qemu_plugin_insn_data(const struct insn *);
#endif

int qemu_plugin_version = PLUGIN_API;

/* The classes are those that a core's pipelines tell apart. */
enum class { DOT, MUL_LONG, PAIR_LONG, FMA, FLOAT_DIV, VECTOR, VECTOR_LOAD, VECTOR_STORE, LOAD, STORE, BRANCH, SCALAR, CLASSES };
static const char *const names[CLASSES] = {"dot", "mul_long", "pair_long", "fma", "float_div", "vector",
    "vector_load", "vector_store", "load", "store", "branch", "scalar"};

static enum class memory(uint32_t w) {
    int vector = w >> 26 & 1;
    int structures = (w & 0xbe000000) == 0x0c000000;      /* ld1, ld1r, st1...: bit 22 is L */
    int pair = (w & 0x3a000000) == 0x28000000;            /* ldp, stp: bit 22 is L */
    int literal = (w & 0x3b000000) == 0x18000000;
    int load = literal || (structures || pair ? w >> 22 & 1
                           : vector ? w >> 22 & 1         /* opc: x1 loads, 128 bits too */
                                    : (w >> 22 & 3) != 0);
    return vector ? (load ? VECTOR_LOAD : VECTOR_STORE) : (load ? LOAD : STORE);
}

static enum class vector(uint32_t w) {
    if ((w & 0xbf20fc00) == 0x0e009400 || (w & 0xbf00f400) == 0x0f00e000) return DOT;           /* sdot; by element */
    if ((w & 0x9f200c00) == 0x0e200000 && ((w >> 12 & 15) == 8 || (w >> 12 & 15) == 12)) return MUL_LONG;
    if ((w & 0x9f3ffc00) == 0x0e206800 || (w & 0x9f3ffc00) == 0x0e202800) return PAIR_LONG;     /* sadalp, saddlp */
    if ((w & 0xbf20fc00) == 0x0e20cc00 || (w & 0xbf80b400) == 0x0f801000 || (w & 0xff000000) == 0x1f000000) return FMA;
    if ((w & 0xbfa0fc00) == 0x2e20fc00 || (w & 0xbfbffc00) == 0x2ea1f800 || (w & 0xff20fc00) == 0x1e201800
        || (w & 0xff3ffc00) == 0x1e21c000) return FLOAT_DIV;                                      /* fdiv, fsqrt */
    return VECTOR;
}

static enum class classify(uint32_t w) {
    switch (w >> 25 & 15) {
    case 4: case 6: case 12: case 14: return memory(w);
    case 7: case 15: return vector(w);
    case 10: case 11: return BRANCH;
    default: return SCALAR;
    }
}

struct block { struct block *next; uint64_t runs; uint32_t of[CLASSES]; };
static struct block *blocks;

static void ran(unsigned cpu, void *data) {
    (void)cpu;
    __atomic_fetch_add(&((struct block *)data)->runs, 1, __ATOMIC_RELAXED);
}

static void translated(plugin_id id, struct tb *tb) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    for (size_t i = 0; block && i < qemu_plugin_tb_n_insns(tb); i++) {
        uint32_t word = 0;
#if PLUGIN_API >= 3
        qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i), &word, sizeof word);
#else
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
#endif
        block->of[classify(word)]++;
    }
    if (!block) return;
    block->next = __atomic_load_n(&blocks, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&blocks, &block->next, block, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {}
    qemu_plugin_register_vcpu_tb_exec_cb(tb, ran, 0, block);
}

static void finished(plugin_id id, void *data) {
    (void)id, (void)data;
    uint64_t total[CLASSES] = {0}, all = 0;
    for (struct block *block = blocks; block; block = block->next)
        for (int c = 0; c < CLASSES; c++) total[c] += block->runs * block->of[c];
    for (int c = 0; c < CLASSES; c++) all += total[c];
    fprintf(stderr, "all=%llu", (unsigned long long)all);
    for (int c = 0; c < CLASSES; c++) fprintf(stderr, " %s=%llu", names[c], (unsigned long long)total[c]);
    fprintf(stderr, "\n");
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, 0);
    return 0;
}
