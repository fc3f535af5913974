//! Real containers: started, watched, ended. Needs root and busybox.

mod common;

use common::{Node, can_run, cmd, sh};
use tripod_agent::ports::Runtime;
use tripod_model::ErrorKind;

#[tokio::test]
async fn output_and_exit_codes() {
    if !can_run() {
        return;
    }
    let mut node = Node::new().await;
    let (out, err, exit) = node.run(1, sh("echo out; echo err >&2; exit 3")).await;
    assert_eq!(
        (out.as_str(), err.as_str(), exit.code),
        ("out\n", "err\n", Some(3))
    );
    let (_, _, exit) = node.run(2, sh("kill -9 $$")).await;
    // The first process of a namespace cannot kill itself.
    assert_eq!(exit.code, Some(0));
    let (out, _, exit) = node.run(3, cmd(&["echo", "by", "PATH"])).await;
    assert_eq!((out.as_str(), exit.code), ("by PATH\n", Some(0)));
    node.finish().await;
}

#[tokio::test]
async fn commands_that_cannot_run() {
    if !can_run() {
        return;
    }
    let node = Node::new().await;
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
    node.finish().await;
}
