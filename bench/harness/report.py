"""Targets, and tables of what was measured."""

# (measure, key, text, target, kind): kind "of docker <=" and ">=" compare the ratio with Docker's figure of the same
# run; "<=" and ">=" compare the figure itself.
TARGETS = [
    ("container", "no_network_ms", "create+start+wait+remove, no network (ms)", 1 / 6, "of docker <="),
    ("container", "network_ms", "create+start+wait+remove, with network (ms)", 1 / 5, "of docker <="),
    ("service", "running_50_s", "50 replicas running (s)", 1 / 6, "of docker <="),
    ("service", "running_200_s", "200 replicas running (s)", 1 / 6, "of docker <="),
    ("service", "flatness", "cost per replica, 500 against 10", 1.1, "<="),
    ("idle", "rss_mb", "idle resident memory, daemon and keeper (MB)", 30, "<="),
    ("density", "worst_mb", "system memory per idle container (MB)", 1.2, "<="),
    ("writes", "clients_1_per_s", "durable writes/s, 1 client", 2, "of docker >="),
    ("writes", "clients_16_per_s", "durable writes/s, 16 clients", 5, "of docker >="),
    ("start", "fresh_ms", "daemon start, empty data root (ms)", 150, "<="),
    ("start", "again_adopted_ms", "daemon start, 200 containers adopted (ms)", 1000, "<="),
    ("publish", "vip_conn_per_s_ratio", "virtual address, new connections/s, of direct", 0.9, ">="),
    ("publish", "vip_gbit_s_ratio", "virtual address, Gbit/s, of direct", 0.9, ">="),
    ("publish", "mesh_conn_per_s_ratio", "service's port from a neighbour, new connections/s, of direct", 0.9, ">="),
    ("publish", "mesh_gbit_s_ratio", "service's port from a neighbour, Gbit/s, of direct", 0.9, ">="),
    ("publish", "port_conn_per_s_ratio", "container's port from a neighbour, new connections/s, of direct", 0.9, ">="),
    ("publish", "port_gbit_s_ratio", "container's port from a neighbour, Gbit/s, of direct", 0.9, ">="),
    ("ecs", "run_task_ms", "run-task until RUNNING, median (ms)", 150, "<="),
    ("ecs", "service_50_steady_s", "ECS service of 50 tasks steady (s)", 2, "<="),
    ("ecs", "list_per_core_s", "ListTasks, 1,000 tasks: requests/s per core", 20, "of moto >="),
    ("ecs", "describe_100_per_core_s", "DescribeTasks of 100: requests/s per core", 20, "of moto >="),
    ("local", "start_1_ms", "tripod start, one node (ms)", 300, "<="),
    ("local", "start_3_ms", "tripod start, three nodes (ms)", 1000, "<="),
    ("local", "start_6_ms", "tripod start, 3 managers and 3 workers (ms)", 2000, "<="),
    ("local", "again_20_s", "tripod stop and start, 20 workloads serving (s)", 3, "<="),
    ("local", "idle_rss_mb", "idle memory of a one-node cluster (MB)", 45, "<="),
    ("idlecpu", "cpu_percent", "idle processor time, 100 replicas (% of one core)", 0.5, "<="),
    ("cluster", "clients_1_of_etcd", "three managers: durable writes/s, 1 client, of etcd's", 1, ">="),
    ("cluster", "clients_16_of_etcd", "three managers: durable writes/s, 16 clients, of etcd's", 2, ">="),
    ("cluster", "failover_gap_s", "leader killed under 16 writers: time without writes (s)", 3, "<="),
    ("cluster", "manager_rss_mb", "idle memory of a manager (MB)", 45, "<="),
    ("cluster", "worker_rss_mb", "idle memory of a worker (MB)", 20, "<="),
    ("cluster", "mesh_ratio", "mesh through a node without replica, Gbit/s, of direct", 0.9, ">="),
    ("kube", "readyz_ms", "cold start to /readyz (ms)", 250, "<="),
    ("kube", "node_ready_ms", "cold start to a ready node (ms)", 250, "<="),
    ("kube", "pod_running_ms", "pod created until Running, in sequence (ms)", 80, "<="),
    ("kube", "pods_50_running_s", "50 pods at once, all Running (s)", 1.5, "<="),
    ("kube", "configmaps_1_per_s", "ConfigMaps/s over TLS, 1 client", 2000, ">="),
    ("kube", "configmaps_16_per_s", "ConfigMaps/s over TLS, 16 clients", 8000, ">="),
    ("kube", "watch_100x1000_s", "100 watchers × 1,000 updates (s)", 0.7, "<="),
    ("kube", "deployment_1000_s", "Deployment of 1,000 replicas bound (s)", 0.5, "<="),
    ("kube", "scheduled_per_s", "10,000 waiting pods on 1,000 nodes, bound/s", 5000, ">="),
    ("kube", "list_ms", "LIST of 10,000 pods (ms)", 40, "<="),
    ("kube", "kubectl_get_pods_s", "kubectl get pods -A of 10,000 (s)", 1, "<="),
    ("kube", "idle_rss_mb", "resident memory, idle cluster (MB)", 45, "<="),
    ("kube", "loaded_rss_mb", "resident memory, 10,000 pods, 1,000 nodes (MB)", 200, "<="),
]


def figure(value):
    """A number with about three digits."""
    if value is None:
        return "–"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.4f}"


def table(head, rows):
    """A table in Markdown with columns of equal width."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in [head, *rows]]
    lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(lines)


def derive(measured):
    """Adds what follows from several figures of one measure."""
    service = measured.get("service", {}).get("tripod", {})
    if "per_replica_500_ms" in service:
        service["flatness"] = service["per_replica_500_ms"] / service["per_replica_10_ms"]


def summary(measured):
    """Rows of targets: target, Tripod, Docker, ratio, met."""
    rows = []
    for measure, key, text, target, kind in TARGETS:
        tripod = measured.get(measure, {}).get("tripod", {}).get(key)
        docker = measured.get(measure, {}).get("docker", {}).get(key)
        if measure not in measured:
            continue
        other = measured.get(measure, {}).get("moto", {}).get(key) if kind.startswith("of moto") else docker
        ratio = tripod / other if tripod is not None and other else None
        judged = ratio if kind.startswith("of ") else tripod
        if kind == "of docker <=":
            wanted = f"≤ 1/{round(1 / target)} of Docker's"
        elif kind == "of docker >=":
            wanted = f"≥ {target} × Docker's"
        elif kind == "of moto >=":
            wanted = f"≥ {target} × moto's"
        else:
            wanted = f"{'≤' if kind == '<=' else '≥'} {figure(target)}"
        met = "–" if judged is None else "yes" if (judged <= target if kind.endswith("<=") else judged >= target) else "no"
        shown = "–" if ratio is None else f"1/{figure(1 / ratio)}" if ratio < 1 else f"{figure(ratio)} ×"
        rows.append([text, wanted, figure(tripod), figure(other), shown, met])
    return table(["measure", "target", "Tripod", "Docker or moto", "ratio", "met"], rows)


def details(name, title, by_engine):
    """All figures of one measure, an engine a column."""
    keys = list(dict.fromkeys(key for figures in by_engine.values() for key in figures))
    engines = list(by_engine)
    rows = [[key, *(figure(by_engine[e].get(key)) for e in engines)] for key in keys]
    return f"{name}: {title}\n\n" + table(["figure", *engines], rows)
