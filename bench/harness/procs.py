"""Processes and memory, read from /proc. On the machine of a measure every process belongs to the engine or to us."""

import os
import time


def processes(*programs):
    """Identifiers of the processes whose program (the link /proc/PID/exe) has one of these names."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
        except OSError:
            continue
        if program in programs:
            found.append(int(pid))
    return found


def command(pid):
    """The arguments of a process."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().split(b"\0")[:-1]


def memory(pid):
    """(resident, proportional) memory in bytes: `Rss` and `Pss` of the kernel's smaps_rollup."""
    rss = pss = 0
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            field, _, rest = line.partition(":")
            if field == "Rss":
                rss = int(rest.split()[0]) * 1024
            elif field == "Pss":
                pss = int(rest.split()[0]) * 1024
    return rss, pss


def cpu_seconds(pids):
    """Time on a processor of all threads of the processes, by the scheduler's own clock (nanoseconds)."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    total += int(file.read().split()[0])
            except FileNotFoundError:
                pass  # the thread ended
    return total / 1e9


def spent_seconds(pids):
    """Time on a processor of the processes, threads that have ended included; counted in ticks (10 ms)."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            user, system = file.read().rpartition(")")[2].split()[11:13]
        total += int(user) + int(system)
    return total / os.sysconf("SC_CLK_TCK")


def switches(pids):
    """Voluntary context switches of all threads: how often something slept and was woken."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{thread}/status") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
            except FileNotFoundError:
                pass
    return total


def system_memory():
    """(used by MemAvailable, used by MemFree) of the whole system in bytes, after dropping what caches can drop."""
    os.sync()
    for _ in range(3):
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        time.sleep(0.5)
    values = {}
    with open("/proc/meminfo") as file:
        for line in file:
            field, _, rest = line.partition(":")
            values[field] = int(rest.split()[0]) * 1024
    return values["MemTotal"] - values["MemAvailable"], values["MemTotal"] - values["MemFree"]


def charged_memory():
    """Bytes that the kernel charges to this machine's control groups: processes, their kernel memory, page cache.

    Unlike the system's memory it knows nothing of other processes; unlike it, it also misses what the kernel does not
    charge to anybody (parts of network namespaces and devices). None where the hierarchy does not tell.
    """
    for file in ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory.current"):
        try:
            with open(file) as opened:
                return int(opened.read())
        except OSError:
            continue
    return None
