//! Consoles of running guests: several at once, `baton console`, and a summary that is alone on standard output.

mod common;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::echo::kernel;
use common::session::Session;
use common::{Running, baton, file, start};

/// A path for a socket of a test.
fn socket(name: &str) -> PathBuf {
    let name = format!("baton-console-{}-{name}.sock", std::process::id());
    std::env::temp_dir().join(name)
}

/// Connects to the console of `run`, which has been started.
fn connect(run: &mut Running, path: &Path) -> UnixStream {
    let mut connected = None;
    run.until("its console can be reached", || {
        connected = UnixStream::connect(path).ok();
        connected.is_some()
    });
    connected.expect("connected")
}

/// Reads the echo of `text`, which the guest gets.
fn exchange(console: &mut (impl Read + Write), text: &[u8]) {
    console.write_all(text).expect("typed");
    let mut echo = vec![0; text.len()];
    console.read_exact(&mut echo).expect("an echo");
    assert_eq!(echo, text);
}

fn prompt(console: &mut impl Read) {
    let mut prompt = [0];
    console.read_exact(&mut prompt).expect("a prompt");
    assert_eq!(prompt, *b">");
}

#[test]
fn guests_with_consoles_of_their_own_are_typed_to_at_once_and_the_summary_is_alone() {
    let (kernel, path) = (kernel("at-once"), socket("at-once"));
    let log = file("at-once.log", b"");
    let text = format!(
        "[[guest]]\nname = \"a\"\nkernel = \"{kernel}\"\nconsole = \"unix:{}\"\n\
         [[guest]]\nname = \"b\"\nkernel = \"{kernel}\"\nconsole = \"pty\"\n\
         [[guest]]\nname = \"c\"\ncmdline = \"seconds=0.1\"\nconsole = \"file:{}\"\n\
         [[guest]]\nname = \"d\"\ncmdline = \"seconds=0.1\"\nconsole = \"off\"\n\
         [[guest]]\nname = \"e\"\ncmdline = \"seconds=0.1\"\n",
        path.display(),
        log.display()
    );
    let config = file("at-once.toml", text.as_bytes());
    let config = config.to_string_lossy();
    let mut run = start(&["run", &config, "--control", "off", "--summary", "json"]);
    let mut errors = BufReader::new(run.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("baton: the console of guest b is ") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).expect("text"), 0, "no line");
    }
    let terminal = line.trim().rsplit(' ').next().expect("a path").to_owned();

    let mut first = connect(&mut run, &path);
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let terminal = options.custom_flags(libc::O_NOCTTY).open(terminal);
    let mut second: File = terminal.expect("a terminal");
    prompt(&mut first);
    prompt(&mut second);
    exchange(&mut first, b"one");
    exchange(&mut second, b"two");
    exchange(&mut first, b"three");
    first.write_all(b"q").expect("typed");
    second.write_all(b"q").expect("typed");

    let mut rest = String::new();
    errors.read_to_string(&mut rest).expect("text");
    let ran = run.finish();
    assert_eq!(ran.code, 0, "{ran:?} {rest}");
    let summary = ran.summary();
    assert_eq!(summary["version"], 1);
    for guest in summary["guests"].as_array().expect("guests") {
        assert_eq!(guest["ok"], true, "{guest}");
        assert_eq!(guest["console_dropped"], 0, "{guest}");
    }
    let printed = std::fs::read_to_string(log).expect("a log");
    for text in [&rest, &printed] {
        let lines = text.lines();
        // In the file and on standard error, without a prefix: each is for one guest.
        let of_guest = lines.filter(|line| line.starts_with("guest: lock"));
        assert_eq!(of_guest.count(), 1, "{text}");
    }
    assert!(!path.exists());
}

#[test]
fn a_console_that_is_standard_output_under_another_name_is_refused_beside_a_summary_as_json() {
    let flags = ["run", "--cmdline", "seconds=0.1", "--control", "off"];
    let console = ["--console", "file:/dev/stdout"];
    let refused = baton(&[&flags[..], &console, &["--summary", "json"]].concat());
    let sentence = refused.one_sentence();
    assert!(
        sentence.contains("/dev/stdout is standard output"),
        "{sentence}"
    );
    assert_eq!(refused.stdout, "");
    let ran = baton(&[&flags[..], &console].concat());
    assert!(
        ran.code == 0 && ran.stdout.contains("guest: done"),
        "{ran:?}"
    );
}

/// A run whose guest has its console at a socket, and the path of that.
fn guest(name: &str) -> (Running, PathBuf) {
    let (kernel, path) = (kernel(name), socket(name));
    let console = format!("unix:{}", path.display());
    let run = [
        "run",
        "--control",
        "off",
        "--kernel",
        &kernel,
        "--console",
        &console,
    ];
    let mut run = start(&run);
    prompt(&mut connect(&mut run, &path));
    (run, path)
}

/// `baton console` alone on a terminal, attached to the console at `path`.
fn attached(path: &Path) -> Session {
    let path = path.to_str().expect("UTF-8");
    let mut session = Session::start(common::command(&["console", path]));
    session.until("the terminal is raw", Session::is_raw);
    session.until("the scrollback is shown", |session| {
        session.text().contains('>')
    });
    session
}

#[test]
fn baton_console_shows_the_scrollback_types_to_the_guest_and_detaches_by_ctrl_a_d() {
    let (mut run, path) = guest("detach");
    for text in ["hello", "again"] {
        let mut session = attached(&path);
        let before = session.modes();
        session.master.write_all(text.as_bytes()).expect("typed");
        session.until("the echo is shown", |session| session.text().contains(text));
        // One Ctrl-a for the guest, and then the end.
        session.master.write_all(b"\x01aend\x01d").expect("typed");
        let status = session.leader.wait().expect("it ends");
        assert!(status.success(), "{}", session.text());
        assert!(!session.is_raw() && session.modes() != before);
        session.until_shown("baton: detached; the guest goes on");
        run.assert_alive("the guest goes on");
    }
    let mut console = connect(&mut run, &path);
    let expected = b">hello\x01endagain\x01end";
    let mut shown = vec![0; expected.len()];
    console.read_exact(&mut shown).expect("the scrollback");
    assert_eq!(shown, expected);
    console.write_all(b"q").expect("typed");
    assert_eq!(run.finish().code, 0);
}

#[test]
fn baton_console_gives_the_terminal_its_modes_back_when_it_ends_otherwise() {
    let (run, path) = guest("ends");
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGSEGV] {
        let mut session = attached(&path);
        session.leader.signal(signal);
        session.leader.wait().expect("it ends");
        assert!(!session.is_raw(), "signal {signal}");
    }
    let mut session = attached(&path);
    session.master.write_all(b"q").expect("typed");
    let status = session.leader.wait().expect("it ends");
    assert!(status.success() && !session.is_raw(), "{}", session.text());
    session.until_shown("baton: the console has ended");
    assert_eq!(run.finish().code, 0);
    let after = Command::new(env!("CARGO_BIN_EXE_baton"))
        .arg("console")
        .arg(&path)
        .output();
    let after = after.expect("it starts");
    assert_eq!(after.status.code(), Some(common::FAILED));
    let sentence = String::from_utf8_lossy(&after.stderr);
    assert!(sentence.contains("there is no console at"), "{sentence}");
}

#[test]
fn a_program_stays_attached_while_the_guest_starts_again() {
    let (kernel, path) = (kernel("again"), socket("again"));
    let console = format!("unix:{}", path.display());
    let flags = ["--kernel", &kernel, "--console", &console];
    let end = ["--control", "off", "--restart", "always"];
    let mut run = start(&[&["run"][..], &flags, &end].concat());
    let mut client = connect(&mut run, &path);
    for _ in 0..2 {
        prompt(&mut client);
        exchange(&mut client, b"hello");
        client.write_all(b"q").expect("typed");
    }
    prompt(&mut client);
    run.signal(libc::SIGTERM);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the end");
    assert_eq!(run.finish().code, 0);
}
