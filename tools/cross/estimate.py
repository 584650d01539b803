"""From counts of instructions to the least time of a window on a core: reads lines of tools/cross/count, prints a table.

Method. A core has pipelines, and each class of instructions occupies some of them for a number of cycles. The pipeline that is
occupied longest gives the least number of cycles, as if nothing ever waited: no cache miss, no dependency. The numbers are those of
Arm's Software Optimization Guides of the Cortex-A72 and the Cortex-A76 (widths, pipelines, throughputs), which LLVM's models of these
cores agree with for the classes that matter: smull and smlal 1 a cycle and sadalp 1 a cycle on the A72, sdot 2 a cycle on the A76.
For the tiles' inner loops, LLVM's simulator (llvm-mca) finds 1.00 to 1.03 times this least number. What a whole program
takes is more: the share of the peak that the same code reaches where it can be measured (x86) is the best guess of how much.
"""

import sys

# Multiply-adds of a window's int8 linears: 12 c^2 a token and block, 8 c^2 a merged token. (Attention's, 0.25 G, are in f32.)
LINEARS = sum(depth * 12 * (96 << s) ** 2 * (64 >> s) ** 2 for s, depth in enumerate((2, 2, 6, 2))) + sum(
    8 * (96 << s) ** 2 * (32 >> s) ** 2 for s in range(3)
)

# GHz, instructions a cycle, vector pipelines, loads a cycle, and for how many cycles a class occupies a vector pipeline. Integer
# products are done by one of the two ("multiplier"), sadalp by the other ("shifter"); the A72's are 64 bits wide for f32.
CORES = {
    "Pi 4 (Cortex-A72)": {"isa": "neon", "ghz": 1.8, "width": 3, "vector": 2, "loads": 1,
                          "any": {"mul_long": 1, "pair_long": 1, "fma": 2, "vector": 1, "float_div": 8, "dot": 1}},
    "Pi 5 (Cortex-A76)": {"isa": "dotprod", "ghz": 2.4, "width": 4, "vector": 2, "loads": 2,
                          "any": {"mul_long": 1, "pair_long": 1, "fma": 1, "vector": 1, "float_div": 8, "dot": 1}},
}


def windows(lines):
    """Counts by class of one window, by instruction set."""
    counts = {}
    for line in lines:
        isa, n, *pairs = line.split()
        counts[isa, int(n)] = {name: int(count) for name, count in (pair.split("=") for pair in pairs)}
    return {isa: {name: counts[isa, 2][name] - counts[isa, 1][name] for name in counts[isa, 1]} for isa, n in counts if n == 1}


def bounds(core, c):
    """Cycles for which each resource is occupied."""
    return {
        "issue": c["all"] / core["width"],
        "vector": sum(cycles * c[name] for name, cycles in core["any"].items()) / core["vector"],
        "multiplier": c["mul_long"],
        "shifter": c["pair_long"],
        "loads": (c["load"] + c["vector_load"]) / core["loads"],
        "stores": c["store"] + c["vector_store"],
    }


def main():
    of = windows(sys.stdin)
    names = [name for name in next(iter(of.values())) if name != "all"]
    print(f"Million instructions a window ({LINEARS / 1e9:.2f} G int8 multiply-adds)")
    for isa, c in of.items():
        print(f"  {isa}: {c['all'] / 1e6:.0f}: " + ", ".join(f"{name} {c[name] / 1e6:.0f}" for name in names if c[name] >= 5e5))
    for name, core in CORES.items():
        cycles = bounds(core, of[core["isa"]])
        most = max(cycles, key=cycles.get)
        print(f"{name}, {core['isa']}: at least {cycles[most] / core['ghz'] / 1e6:.0f} ms on one core, by {most}: "
              + ", ".join(f"{what} {n / 1e6:.0f} M" for what, n in cycles.items()) + " cycles")


main()
