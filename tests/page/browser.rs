//! Chromium without a window, driven by chromedriver over WebDriver: JSON over HTTP, one command after another.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::HANG;

/// Set if a machine is known to have no browser.
const WITHOUT: &str = "DIESEL_NEON_WITHOUT_BROWSER";
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
pub(crate) const SPACE: &str = " ";
pub(crate) const TAB: &str = "\u{e004}";

/// A browser of its own, with one page; dropping it ends it.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: PathBuf,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let (Some(program), Some(driver)) = (
            BROWSERS.iter().find_map(|name| find(name)),
            find("chromedriver"),
        ) else {
            missing();
        };
        // The shell's input ends with this process, however that ends, and the browser with the shell.
        let guard = "\"$0\" --port=0 & cat; kill -s KILL 0";
        let mut driver = Command::new("sh")
            .args(["-c", guard])
            .arg(driver)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = port(&mut driver);
        let profile = std::env::temp_dir().join(format!("diesel-neon-page-{}", driver.id()));
        fs::create_dir_all(&profile).unwrap();
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            profile,
        };
        let profile = format!("--user-data-dir={}", browser.profile.display());
        let options = json!({
            "binary": program,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--force-device-scale-factor=1", "--hide-scrollbars", "--lang=en", profile,
            ],
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.command("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Opens a page, as wide and high as this.
    pub(crate) fn open(&self, url: &str, width: u32, height: u32) {
        self.resize(width, height);
        self.post("url", &json!({ "url": url }));
    }

    /// Opens a tab in front of the others, for the commands that follow.
    pub(crate) fn new_tab(&self) {
        let tab = self.post("window/new", &json!({ "type": "tab" }));
        self.post("window", &json!({ "handle": tab["handle"] }));
    }

    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets what the page learns of the user's wishes, such as `prefers-color-scheme`.
    pub(crate) fn prefer(&self, wishes: &[(&str, &str)]) {
        let wishes = wishes
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }));
        let wishes = json!({ "features": wishes.collect::<Vec<_>>() });
        self.devtools("Emulation.setEmulatedMedia", &wishes);
    }

    /// Clicks as a mouse does: what cannot be seen, or lies under something else, is an error.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("element/{element}/click"), &json!({}));
    }

    /// Replaces the text of an input.
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("element/{element}/clear"), &json!({}));
        self.post(
            &format!("element/{element}/value"),
            &json!({ "text": text }),
        );
    }

    /// Presses keys, wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|what| json!({ "type": what, "value": key.to_string() }))
        });
        let keyboard =
            json!({ "type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>() });
        self.post("actions", &json!({ "actions": [keyboard] }));
    }

    /// Runs the body of a function in the page, and returns what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Returns the text of an element, as it is shown.
    pub(crate) fn text(&self, selector: &str) -> String {
        let text = self.run(&format!(
            "return document.querySelector({selector:?})?.innerText ?? ''"
        ));
        text.as_str().unwrap().trim().to_owned()
    }

    /// Returns the number that an element shows.
    pub(crate) fn number(&self, selector: &str) -> u64 {
        let text = self.text(selector);
        text.replace(',', "")
            .parse()
            .unwrap_or_else(|_| panic!("{selector}: {text:?}"))
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) fn until(&self, expression: &str) {
        let began = Instant::now();
        while self.run(&format!("return Boolean({expression})")) != json!(true) {
            assert!(
                began.elapsed() < HANG,
                "never: {expression}\n{}\n{:?}",
                self.run("return document.body.innerText")
                    .as_str()
                    .unwrap_or_default(),
                self.console()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until an element shows a text.
    pub(crate) fn until_shown(&self, selector: &str, text: &str) {
        self.until(&format!(
            "document.querySelector({selector:?})?.innerText.includes({text:?})"
        ));
    }

    /// Returns what the console has said since this was last asked, but of the browser's own pages: without a network,
    /// its new tab complains.
    pub(crate) fn console(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().unwrap().iter();
        let of_pages =
            lines.filter(|line| !line["message"].as_str().unwrap().starts_with("chrome://"));
        of_pages
            .map(|line| format!("{}: {}", line["level"], line["message"]))
            .collect()
    }

    /// Writes a picture of the whole page, or of its upper part, a little smaller.
    pub(crate) fn picture(&self, path: &Path, upper: Option<(u32, u32)>) {
        let mut how = json!({ "format": "png", "captureBeyondViewport": true });
        if let Some((width, height)) = upper {
            how["clip"] =
                json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 0.86 });
        }
        let taken = self.devtools("Page.captureScreenshot", &how);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, base64(taken["data"].as_str().unwrap())).unwrap();
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post(
            "goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    fn element(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let element = self.post("element", &query);
        element[ELEMENT].as_str().unwrap().to_owned()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.command("POST", &format!("/session/{}/{path}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = exchange(self.port, method, path, &body.to_string()).unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{path} {body}: {value:#}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser may have something to tidy up.
        let session = format!("/session/{}", self.session);
        let _ = exchange(self.port, "DELETE", &session, "{}");
        drop(self.driver.stdin.take());
        let _ = self.driver.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

fn exchange(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(HANG))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            Some(_) => {}
            None if line.starts_with("HTTP/") => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8(body).unwrap())
}

/// Reads on which port the driver listens.
fn port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| {
        let line = line.unwrap();
        let port = line.strip_prefix("ChromeDriver was started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    // Whoever prints later must not find the pipe closed.
    thread::spawn(move || lines.for_each(drop));
    port.expect("the driver starts")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn missing() -> ! {
    assert!(
        std::env::var_os(WITHOUT).is_some(),
        "there is no Chromium, or no chromedriver: run `make setup`, or set {WITHOUT}=1 to do without the tests of the page"
    );
    // Written past libtest's capture, before a test can be reported as passed.
    let _ = writeln!(
        std::io::stderr(),
        "\nMISSING: a browser; NOTHING of the page was tested"
    );
    std::process::exit(0);
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(|byte| digit(byte).into())
        .collect();
    let mut bytes = Vec::with_capacity(digits.len());
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}
