//! Real containers: started, watched, ended. Needs root and busybox.

mod common;

use std::time::Duration;

use common::{Node, can_run, cmd, collect, sh, wait_for};
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tripod_agent::ports::{ExecRequest, LogQuery, Runtime};
use tripod_model::ErrorKind;
use tripod_model::container::InjectedFile;

/// Runs the body with a node, and checks afterwards that nothing is left.
macro_rules! on_a_node {
    ($name:ident, |$node:ident| $body:block) => {
        #[tokio::test]
        async fn $name() {
            if !can_run() {
                return;
            }
            #[allow(unused_mut)]
            let mut $node = Node::new().await;
            $body
            $node.finish().await;
        }
    };
}

fn exec(id: &str, words: &[&str]) -> ExecRequest {
    ExecRequest {
        exec_id: id.into(),
        command: words.iter().map(ToString::to_string).collect(),
        ..ExecRequest::default()
    }
}

on_a_node!(output_and_exit_codes, |node| {
    let (out, err, exit) = node.run(1, sh("echo out; echo err >&2; exit 3")).await;
    assert_eq!(
        (out.as_str(), err.as_str(), exit.code),
        ("out\n", "err\n", Some(3))
    );
    // The first process of a namespace cannot kill itself.
    let (_, _, exit) = node.run(2, sh("kill -9 $$; exit 5")).await;
    assert_eq!(exit.code, Some(5));
    let (out, _, exit) = node.run(3, cmd(&["echo", "by", "PATH"])).await;
    assert_eq!((out.as_str(), exit.code), ("by PATH\n", Some(0)));
});

on_a_node!(commands_that_cannot_run, |node| {
    for (command, text) in [
        (
            "nope",
            "exec: \"nope\": executable file not found in $PATH: unknown",
        ),
        (
            "/nope",
            "exec: \"/nope\": stat /nope: no such file or directory: unknown",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied: unknown"),
    ] {
        let e = node
            .runtime
            .start(node.request(1, cmd(&[command])))
            .await
            .unwrap_err();
        assert!(e.message.ends_with(text), "{}", e.message);
        assert_eq!(e.kind, ErrorKind::Invalid);
    }
    let mut spec = sh("true");
    spec.user = "nobody-here".into();
    let e = node.runtime.start(node.request(1, spec)).await.unwrap_err();
    assert_eq!(
        e.message,
        "unable to find user nobody-here: no matching entries in passwd file"
    );
});

on_a_node!(identity_environment_and_limits, |node| {
    let mut spec = sh(
        "id; pwd; echo $HOME $HOSTNAME; hostname; cat /secret; grep -E 'Cap(Eff|Bnd)|Seccomp:' /proc/self/status",
    );
    spec.user = "web".into();
    spec.working_dir = "/made/here".into();
    spec.files.push(InjectedFile {
        path: "/secret".into(),
        data: b"hidden\n".to_vec(),
        uid: "web".into(),
        mode: 0o400,
        secret: true,
        ..InjectedFile::default()
    });
    let (out, err, _) = node.run(1, spec).await;
    assert_eq!(err, "");
    for text in [
        "uid=33(web) gid=34(www) groups=29(audio),34(www)",
        "/made/here\n",
        "/var/www box\nbox\n",
        "hidden\n",
        "CapEff:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "Seccomp:\t2",
    ] {
        assert!(out.contains(text), "{text:?} is not in {out}");
    }
    let (out, _, _) = node.run(2, sh("grep CapEff /proc/self/status; mount -t tmpfs x /tmp 2>&1; unshare -n true 2>&1; echo x > /proc/sysrq-trigger; ls /sys/firmware | wc -l")).await;
    assert!(out.contains("CapEff:\t00000000a80425fb"), "{out}");
    assert!(
        out.contains("mount: permission denied")
            && out.contains("unshare(0x40000000): Operation not permitted"),
        "{out}"
    );
    assert!(out.ends_with("0\n"), "{out}");
    let mut spec = sh("touch /x 2>&1; touch /dev/shm/y && echo fine");
    spec.security.read_only_rootfs = true;
    let (out, _, _) = node.run(3, spec).await;
    assert!(
        out.contains("Read-only file system") && out.ends_with("fine\n"),
        "{out}"
    );
});

on_a_node!(terminals, |node| {
    let mut spec = sh("stty size; read x; echo got $x; stty size; test -t 0 && echo tty");
    (spec.tty, spec.open_stdin, spec.console_size) = (true, true, Some((33, 77)));
    let request = node.request(1, spec);
    let id = request.id.clone();
    let mut streams = node.runtime.attach_next(&id).await.unwrap();
    node.runtime.start(request).await.unwrap();
    wait_for(&mut streams, "33 77").await;
    node.runtime.resize(&id, 10, 20).await.unwrap();
    streams
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"hello\n")
        .await
        .unwrap();
    let rest = wait_for(&mut streams, "tty").await;
    assert!(rest.contains("got hello") && rest.contains("10 20"), "{rest}");
    assert_eq!(node.exit().await.code, Some(0));
});

on_a_node!(standard_input_closes_with_its_client, |node| {
    let mut spec = cmd(&["wc", "-c"]);
    (spec.open_stdin, spec.stdin_once) = (true, true);
    let request = node.request(1, spec);
    let mut streams = node.runtime.attach_next(&request.id).await.unwrap();
    node.runtime.start(request).await.unwrap();
    let mut input = streams.stdin.take().unwrap();
    // More than any buffer on the way takes at once.
    input.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    input.shutdown().await.unwrap();
    assert_eq!(collect(streams).await.0.trim(), "1048576");
});

on_a_node!(much_output_reaches_slow_clients_whole, |node| {
    let request = node.request(1, sh("yes 0123456789abcde | head -c 4000000"));
    let streams = node.runtime.attach_next(&request.id).await.unwrap();
    node.runtime.start(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(collect(streams).await.0.len(), 4_000_000);
    assert_eq!(node.exit().await.code, Some(0));
});

on_a_node!(execs, |node| {
    let request = node.request(1, sh("export A=1; sleep 1000"));
    let id = request.id.clone();
    node.runtime.start(request).await.unwrap();
    let (streams, pid) = node
        .runtime
        .exec(
            &id,
            exec(
                "e1",
                &[
                    "sh",
                    "-c",
                    "echo $PPID $$ | grep -c ^0; ls /proc/1/exe; echo e >&2",
                ],
            ),
        )
        .await
        .unwrap();
    assert!(pid > 0);
    let (out, err) = collect(streams).await;
    assert_eq!((out.as_str(), err.as_str()), ("1\n/proc/1/exe\n", "e\n"));
    let mut request = exec(
        "e2",
        &[
            "sh",
            "-c",
            "id -u; grep -E 'CapEff|Seccomp:' /proc/self/status; stty size; echo $X; pwd",
        ],
    );
    (request.tty, request.user, request.working_dir) = (true, "web".into(), "/tmp".into());
    (request.console_size, request.env) = (Some((5, 6)), vec!["X=y".into()]);
    let out = collect(node.runtime.exec(&id, request).await.unwrap().0)
        .await
        .0
        .replace('\r', "");
    assert_eq!(out, "33\nCapEff:\t0000000000000000\nSeccomp:\t2\n5 6\ny\n/tmp\n");
    let e = node.runtime.exec(&id, exec("e3", &["nope"])).await.err().unwrap();
    assert!(
        e.message
            .contains("exec: \"nope\": executable file not found in $PATH")
            && e.kind == ErrorKind::Invalid
    );
    let long = Duration::from_secs(20);
    let (code, out) = node
        .runtime
        .exec_sync(&id, exec("e4", &["sh", "-c", "echo 12345; exit 9"]), long, 3)
        .await
        .unwrap();
    assert_eq!((code, &out[..]), (Some(9), &b"123"[..]));
    let (code, _) = node
        .runtime
        .exec_sync(&id, exec("e5", &["sleep", "100"]), Duration::from_millis(100), 9)
        .await
        .unwrap();
    assert_eq!(code, None);
    let mut request = exec("e6", &["cat"]);
    request.stdin = true;
    let (mut streams, _) = node.runtime.exec(&id, request).await.unwrap();
    streams.stdin.take().unwrap().write_all(b"through").await.unwrap();
    assert_eq!(collect(streams).await.0, "through");
});

on_a_node!(signals_pause_and_init, |node| {
    let request = node.request(
        1,
        sh("trap 'exit 42' TERM; echo up; while true; do sleep 0.01; done"),
    );
    let id = request.id.clone();
    let mut streams = node.runtime.attach_next(&id).await.unwrap();
    node.runtime.start(request).await.unwrap();
    wait_for(&mut streams, "up").await;
    node.runtime.pause(&id).await.unwrap();
    assert!(node.runtime.adopt().await.unwrap()[0].paused);
    node.runtime.signal(&id, 15).await.unwrap();
    node.runtime.unpause(&id).await.unwrap();
    assert_eq!(node.exit().await.code, Some(42));
    let mut spec = cmd(&["sleep", "1000"]);
    spec.init = true;
    let request = node.request(2, spec);
    let id = request.id.clone();
    node.runtime.start(request).await.unwrap();
    assert_eq!(node.runtime.pids(&id).await.unwrap().len(), 2);
    node.runtime.signal(&id, 15).await.unwrap();
    assert_eq!(node.exit().await.code, Some(143));
    let mut spec = cmd(&["nope"]);
    spec.init = true;
    assert!(
        node.runtime
            .start(node.request(3, spec))
            .await
            .unwrap_err()
            .message
            .contains("not found in $PATH")
    );
});

on_a_node!(limits_hold, |node| {
    let mut spec = sh("i=0; while test $i -lt 50; do sleep 5 & i=$((i+1)); done 2>&1; echo done");
    spec.resources.pids_limit = Some(10);
    let (out, _, _) = node.run(1, spec).await;
    assert!(
        out.contains("Resource temporarily unavailable") || out.contains("can't fork"),
        "{out}"
    );
    let mut spec = sh("tail /dev/zero");
    spec.resources.memory = 8 << 20;
    let (_, _, exit) = node.run(2, spec).await;
    assert!(exit.oom_killed && exit.code == Some(137), "{exit:?}");
    let request = node.request(3, cmd(&["sleep", "1000"]));
    let id = request.id.clone();
    node.runtime.start(request).await.unwrap();
    let stats = node.runtime.stats(&id).await.unwrap();
    assert!(
        stats.memory_usage > 0 && stats.pids.0 == 1 && stats.cpu_total > 0,
        "{stats:?}"
    );
    let resources = tripod_model::container::Resources {
        memory: 32 << 20,
        pids_limit: Some(5),
        ..Default::default()
    };
    node.runtime.update(&id, &resources).await.unwrap();
    let stats = node.runtime.stats(&id).await.unwrap();
    assert_eq!((stats.memory_limit, stats.pids.1), (32 << 20, 5));
});

on_a_node!(logs_follow_to_the_end, |node| {
    let mut spec =
        sh("for i in $(seq 1 200); do echo line $i; done; sleep 0.2; echo late >&2; printf unfinished");
    spec.log.options.insert("max-size".into(), "2k".into());
    spec.log.options.insert("max-file".into(), "20".into());
    let request = node.request(1, spec);
    let id = request.id.clone();
    node.runtime.start(request).await.unwrap();
    let query = LogQuery {
        stdout: true,
        stderr: true,
        follow: true,
        ..LogQuery::default()
    };
    let lines: Vec<_> = node
        .runtime
        .logs(&id, query)
        .await
        .unwrap()
        .map(|l| l.unwrap().data)
        .collect()
        .await;
    assert_eq!(lines.len(), 202);
    assert_eq!(&lines[199][..], b"line 200\n");
    assert_eq!(&lines[201][..], b"unfinished");
    node.exit().await;
    let tail = LogQuery {
        stdout: true,
        stderr: true,
        tail: Some(2),
        ..LogQuery::default()
    };
    assert_eq!(node.runtime.logs(&id, tail).await.unwrap().count().await, 2);
});

on_a_node!(another_daemon_adopts, |node| {
    let request = node.request(
        1,
        sh("echo before; while ! test -e /tmp/go; do sleep 0.01; done; echo after; exit 7"),
    );
    let id = request.id.clone();
    let started = node.runtime.start(request).await.unwrap();
    let request = node.request(2, sh("exit 4"));
    node.runtime.start(request).await.unwrap();
    node.exit().await;
    let file = std::fs::File::open("/dev/null").unwrap();
    node.runtime.store_fds("dns", vec![file.into()]).await.unwrap();
    node.reopen().await;
    let mut all = node.runtime.adopt().await.unwrap();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(
        (all[0].pid, all[0].run, all[0].exit.clone()),
        (started.pid, 1, None)
    );
    assert_eq!(all[1].exit.as_ref().unwrap().code, Some(4));
    assert_eq!(node.runtime.fetch_fds("dns").await.unwrap().len(), 1);
    node.runtime.acknowledge_exit(&all[1].id, 1).await.unwrap();
    assert_eq!(node.runtime.adopt().await.unwrap().len(), 1);
    node.runtime.remove(&all[1].id).await.unwrap();
    std::fs::write(node.rootfs().join("tmp/go"), "").unwrap();
    assert_eq!(node.exit().await.code, Some(7));
    let query = LogQuery {
        stdout: true,
        ..LogQuery::default()
    };
    assert_eq!(node.runtime.logs(&id, query).await.unwrap().count().await, 2);
});

on_a_node!(containers_outlive_the_keeper, |node| {
    let script = "i=0; while ! test -e /tmp/go; do i=$((i+1)); echo $i; sleep 0.01; done; echo last; exit 6";
    let request = node.request(1, sh(script));
    let id = request.id.clone();
    let started = node.runtime.start(request).await.unwrap();
    let query = LogQuery {
        stdout: true,
        follow: true,
        ..LogQuery::default()
    };
    let mut lines = node.runtime.logs(&id, query).await.unwrap();
    lines.next().await.unwrap().unwrap();
    let keeper = node.keeper_pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(keeper),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    while std::path::Path::new(&format!("/proc/{keeper}/exe")).exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = loop {
        match node.runtime.adopt().await {
            Ok(all) => break all,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!((all[0].pid, all[0].exit.clone()), (started.pid, None));
    std::fs::write(node.rootfs().join("tmp/go"), "").unwrap();
    let exit = node.exit().await;
    assert!(exit.code == Some(6) || exit.code.is_none(), "{exit:?}");
    eprintln!("exit code after the keeper was killed: {:?}", exit.code);
    let rest: Vec<_> = lines
        .map(|l| String::from_utf8_lossy(&l.unwrap().data).trim().to_owned())
        .collect()
        .await;
    assert_eq!(rest.last().unwrap(), "last");
    let numbers: Vec<i64> = rest.iter().filter_map(|l| l.parse().ok()).collect();
    assert!(
        numbers.windows(2).all(|w| w[1] == w[0] + 1),
        "lines were lost: {numbers:?}"
    );
});
