//! Planning a service of 10, 1,000 and 10,000 replicas of one template on 100 nodes: per replica, the cost is to
//! stay about the same.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tripod_model::Time;
use tripod_model::node::{Node, NodeState};
use tripod_model::pod::Pod;
use tripod_model::swarm::{ServiceMode, ServiceSpec, SwarmCluster};
use tripod_plan::rollout::new_service;
use tripod_plan::{Object, View, Write, reconcile};

fn view(replicas: u64) -> View {
    let mut view = View::new();
    view.upsert_cluster(Arc::new(SwarmCluster::default()));
    for n in 0..100 {
        let mut node = Node::default();
        node.metadata.name = format!("node{n}");
        node.spec.swarm.node_id = format!("id{n}");
        node.status.state = NodeState::Ready;
        view.upsert_node(Arc::new(node));
    }
    let mut spec = ServiceSpec {
        name: "web".into(),
        mode: ServiceMode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    spec.task_template.container.image = "blue".into();
    view.upsert_service(Arc::new(new_service(
        "svc".into(),
        "uid".into(),
        spec,
        Time::UNIX_EPOCH,
    )));
    view
}

fn create(c: &mut Criterion) {
    let mut group = c.benchmark_group("create");
    group.sample_size(10);
    for replicas in [10, 1_000, 10_000] {
        let view = view(replicas);
        group.throughput(Throughput::Elements(replicas));
        group.bench_with_input(BenchmarkId::from_parameter(replicas), &view, |b, view| {
            b.iter(|| reconcile(view, ["svc"], Time::UNIX_EPOCH, 1));
        });
    }
    group.finish();
}

/// A service whose tasks all run: what each change of one task costs.
fn steady(c: &mut Criterion) {
    let mut group = c.benchmark_group("steady");
    group.sample_size(10);
    for replicas in [10, 1_000, 10_000] {
        let mut view = view(replicas);
        for write in reconcile(&view, ["svc"], Time::UNIX_EPOCH, 1).writes {
            match write {
                Write::Create(Object::Pod(pod)) => {
                    let mut pod: Pod = pod.as_ref().clone();
                    pod.state.observed = tripod_model::swarm::TaskState::Running;
                    view.upsert_pod(Arc::new(pod));
                }
                Write::Update {
                    object: Object::Service(s),
                    ..
                } => view.upsert_service(s),
                _ => {}
            }
        }
        group.throughput(Throughput::Elements(replicas));
        group.bench_with_input(BenchmarkId::from_parameter(replicas), &view, |b, view| {
            b.iter(|| assert!(reconcile(view, ["svc"], Time::UNIX_EPOCH, 2).is_empty()));
        });
    }
    group.finish();
}

criterion_group!(benches, create, steady);
criterion_main!(benches);
