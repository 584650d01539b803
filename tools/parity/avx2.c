/* Hides from a program that the CPU has more than AVX2: AVX-512, AVX-VNNI and AMX. For libraries that choose their kernels by
 * themselves and have no option for it, as onnxruntime.
 *     cc -O2 -shared -fPIC -o avx2.so tools/parity/avx2.c; LD_PRELOAD=./avx2.so program
 * Linux can make CPUID fault (arch_prctl, CPUs with "cpuid_fault" in /proc/cpuinfo); the handler does it for the program and
 * clears bits of the answer. Exits with status 77 where that can't be had. Bits: Intel's manual, volume 2, CPUID, leaf 7. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

static long faulting(int on) {
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, on ? 0 : 1);
}

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)r[REG_RIP];
    (void)info;
    if (at[0] != 0x0f || at[1] != 0xa2) {
        /* Not CPUID: the instruction runs again and fails as it would have. */
        signal(number, SIG_DFL);
        return;
    }
    unsigned leaf = (unsigned)r[REG_RAX], part = (unsigned)r[REG_RCX], a, b, c, d;
    faulting(0);
    __cpuid_count(leaf, part, a, b, c, d);
    faulting(1);
    if (leaf == 7 && part == 0) {
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* AVX-512 F, DQ, ... VL */
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));                                 /* its VBMI, VNNI, ... */
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));              /* its FP16; AMX */
    } else if (leaf == 7 && part == 1) {
        a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)); /* AVX-VNNI, BF16, AMX-FP16, AVX-IFMA */
        d &= ~(BIT(4) | BIT(5) | BIT(10) | BIT(19)); /* AVX-VNNI-INT8, -NE-CONVERT, -INT16, AVX10 */
    }
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;
    if (sigaction(SIGSEGV, &action, NULL) != 0 || faulting(1) != 0) {
        fputs("avx2.so: this CPU or kernel can't make CPUID fault\n", stderr);
        _exit(77);
    }
}
