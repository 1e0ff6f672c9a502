//! What everything ran on.

use std::fs;
use std::process::Command;

/// A machine in the words of its system.
pub(crate) struct Machine(Vec<(&'static str, String)>);

impl Machine {
    pub(crate) fn look() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let processor = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
        let memory = line_of("/proc/meminfo", "MemTotal")
            .and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok())
            .map_or_else(
                || "unknown".to_owned(),
                |kib| format!("{:.1} GiB", kib / 1024.0 / 1024.0),
            );
        let mut facts =
            vec![("processor", format!("{processor}, {cores} cores")), ("memory", memory)];
        facts.extend(first_line("uname", &["-sr"]).map(|kernel| ("system", kernel)));
        facts.extend(first_line("rustc", &["--version"]).map(|rustc| ("compiler", rustc)));
        facts.extend(revision().map(|revision| ("revision", revision)));
        Self(facts)
    }

    pub(crate) fn facts(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

fn line_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn revision() -> Option<String> {
    let revision = first_line("git", &["rev-parse", "--short", "HEAD"])?;
    let is_changed = first_line("git", &["status", "--porcelain"]).is_some();
    Some(if is_changed { format!("{revision} with changes") } else { revision })
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
