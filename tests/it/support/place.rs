//! A place to run the real program in: a directory, an environment, and
//! nothing else.

use std::fs;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use super::server::PROGRAM;
use super::within;

/// A working directory and an environment to run the program in.
pub struct Place {
    directory: TempDir,
    environment: Vec<(String, String)>,
}

/// How a command ended.
pub struct Ended {
    /// Its exit status.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Place {
    /// Makes an empty place.
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// Adds a file.
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    /// Adds the configuration file.
    pub fn yaml(self, text: &str) -> Self {
        self.file("taskcast.config.yaml", text)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Returns a command to run here.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments.split_whitespace())
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command that ends by itself.
    pub async fn run(&self, arguments: &str) -> Ended {
        let output = within("the command ends", self.command(arguments).output()).await.unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must refuse, with one sentence that names all parts.
    pub async fn refused(&self, arguments: &str, parts: &[&str]) -> String {
        let Ended { code, stderr, .. } = self.run(arguments).await;
        assert_eq!(code, Some(1), "{stderr}");
        let sentence = stderr.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>();
        assert_eq!(sentence.len(), 1, "{stderr}");
        assert!(sentence[0].starts_with("taskcast: "), "{stderr}");
        for part in parts {
            assert!(sentence[0].contains(part), "`{part}` is not in: {stderr}");
        }
        stderr
    }
}
