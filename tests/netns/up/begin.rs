//! Conditions under which `tcpgw up` cannot begin: it reports them and leaves nothing behind.

use nix::sys::signal::Signal;

use super::TCP;
use crate::harness::Net;

#[test]
fn wrong_input_is_refused_and_leaves_nothing() {
    let net = Net::new();
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    for (args, code, message) in [
        (&["-f", "nothing"][..], 2, "failed to read nothing"),
        (&["-e", "nothing.env"], 2, "failed to read nothing.env"),
        (&["-m", "udp=1"], 2, "no process type \"udp\"; it has tcp"),
        (&["-m", "tcp=33"], 2, "must be 0 to 32"),
        (&["--grace", "0s"], 2, "must be 1s to 10m"),
        (&["--socket", "none"], 2, "must not be none"),
        (&["--plan", "nothing"], 2, "there is no plan"),
    ] {
        let refused = app.cli(args).exits(code);
        assert!(refused.stderr.contains(message), "{args:?}: {refused}");
        assert_eq!(net.left_by_up(), Vec::<String>::new(), "{args:?}");
    }
    app.write(".env", "PORT=http\n");
    assert!(app.cli(&[]).exits(2).stderr.contains("PORT is \"http\""));
    app.write("Procfile", "tcp: a\ntcp: b\n");
    let refused = app.cli(&[]).exits(2);
    assert!(
        refused.stderr.contains("line 2: tcp is defined already, on line 1"),
        "{refused}"
    );
    app.write("Procfile", "web: exec sleep 1000\nwhat is this\n");
    app.write(".env", "");
    app.launch(&[]);
    app.prints("Procfile, line 2: ignored");
    app.prints("web.1  | started");
    let twice = app.cli(&[]).exits(1);
    assert!(twice.stderr.contains("runs in this directory already"), "{twice}");
    app.stop(Signal::SIGINT);
}
