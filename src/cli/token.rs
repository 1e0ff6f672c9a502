//! `taskcast token`: makes tokens for mode `jwt` and says what one is worth.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{print, read};
use crate::auth::JwtSigner;
use crate::config::{AuthSettings, Environment, JwtKey, JwtSettings, Purpose};
use crate::domain::{Principal, Scope, TaskGrant, TaskId};
use crate::server;

/// Claims that have an option of their own, or are set by the configuration.
const OWN_CLAIMS: [&str; 8] = ["sub", "taskIds", "scope", "exp", "iat", "nbf", "iss", "aud"];

/// Options of `taskcast token`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file (.yaml, .yml, .json or .toml), as for `serve`.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a token that the configured server accepts.
    Mint(Mint),
    /// Print what the configured server sees in a token; exit status 1 if it
    /// is not valid, or allows nothing.
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Mint {
    /// Who the token is for.
    #[arg(long, value_name = "SUBJECT")]
    sub: Option<String>,
    /// Tasks it is good for: ids with commas, or * for every task.
    #[arg(long, value_name = "IDS", value_parser = parse_tasks)]
    task_ids: TaskGrant,
    /// What it allows, with commas.
    #[arg(long, value_name = "SCOPES", required = true, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// How long it is good: seconds, or a number with s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
    /// Another claim; may be given more than once. A value that is JSON is
    /// taken as such, everything else as text.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_claim)]
    claim: Vec<(String, Value)>,
    /// Private key in PEM, for algorithms other than HS256, HS384 and HS512.
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
}

#[derive(Args)]
struct Verify {
    /// The token. Without it, it is read from standard input, where other
    /// users of the machine cannot see it.
    token: Option<String>,
}

impl fmt::Debug for Verify {
    /// Leaves the token out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify").finish_non_exhaustive()
    }
}

impl ValueEnum for Scope {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

fn parse_tasks(text: &str) -> Result<TaskGrant, String> {
    if text == "*" {
        return Ok(TaskGrant::Every);
    }
    let parse = |id| TaskId::parse(id).map_err(|invalid| format!("`{id}`: {invalid}"));
    text.split(',').map(parse).collect::<Result<_, _>>().map(TaskGrant::Only)
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit));
    // Past a hundred years sums with the time of day could overflow.
    match seconds {
        Some(seconds @ 1..=3_153_600_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be seconds, or a number with s, m, h or d, such as 90m".to_owned()),
    }
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be a name, = and a value")?;
    if OWN_CLAIMS.contains(&name) {
        return Err(format!("`{name}` is not set this way"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

/// Runs the command that was asked for.
pub(super) fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    let config = read(Purpose::Serve, arguments.config.into(), None, environment)?;
    let AuthSettings::Jwt(settings) = &config.auth else {
        bail!("tokens are for mode `jwt`, which is not configured; set `auth.mode`");
    };
    match arguments.command {
        Command::Mint(options) => Ok(print(&mint(settings, options)?)?),
        Command::Verify(options) => verify(settings, options),
    }
}

fn mint(settings: &JwtSettings, options: Mint) -> anyhow::Result<String> {
    let algorithm = server::jwt_algorithm(settings.algorithm);
    let signer = match (&settings.key, &options.private_key_file) {
        (JwtKey::Secret(secret), None) => JwtSigner::with_secret(algorithm, secret.expose()),
        (JwtKey::Secret(_), Some(_)) => bail!(
            "{} signs with the configured secret; leave --private-key-file out",
            settings.algorithm.as_str()
        ),
        (JwtKey::PublicKey(_), None) => bail!(
            "{} signs with a private key; name its file with --private-key-file",
            settings.algorithm.as_str()
        ),
        (JwtKey::PublicKey(_), Some(file)) => {
            let pem = fs::read_to_string(file)
                .with_context(|| format!("cannot read the private key {}", file.display()))?;
            JwtSigner::with_private_pem(algorithm, &pem)
        }
    };
    let signer = signer.map_err(|invalid| anyhow!("the signing key {invalid}"))?;
    let mut claims: Map<String, Value> = options.claim.into_iter().collect();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    if let Some(sub) = options.sub {
        put("sub", sub.into());
    }
    put("taskIds", tasks(&options.task_ids));
    put("scope", options.scope.iter().map(|scope| scope.as_str()).collect());
    if let Some(issuer) = &settings.issuer {
        put("iss", issuer.as_str().into());
    }
    if !settings.audience.is_empty() {
        put("aud", settings.audience.clone().into());
    }
    let token = signer.sign(claims, options.ttl).map_err(|invalid| anyhow!("the key {invalid}"))?;
    // A key pair of two halves that do not belong together signs all the same.
    if let Some(reason) = server::jwt_auth(settings)?.why_not(&token) {
        bail!("the configured key would not accept the token: {reason}");
    }
    Ok(token)
}

fn verify(settings: &JwtSettings, options: Verify) -> anyhow::Result<()> {
    let token = options.token.map_or_else(|| io::read_to_string(io::stdin()), Ok);
    let token = token.context("cannot read standard input")?;
    let auth = server::jwt_auth(settings)?;
    match auth.verify(token.trim()) {
        Ok(principal) => {
            print(&describe(&principal))?;
            match missing(&principal) {
                Some(missing) => bail!("the token is valid and allows nothing: {missing}"),
                None => Ok(()),
            }
        }
        Err(_) => bail!("refused: {}", auth.why_not(token.trim()).unwrap_or("no reason")),
    }
}

/// Says what a principal lacks to be of any use.
fn missing(principal: &Principal) -> Option<&'static str> {
    let is_for_no_task = matches!(&principal.tasks, TaskGrant::Only(ids) if ids.is_empty());
    if principal.scopes.is_empty() {
        return Some(
            "`scope` names no known scope; expected a list, or one string with spaces, \
             of task:create, task:manage, event:publish, event:subscribe, event:history, \
             webhook:create or *",
        );
    }
    is_for_no_task.then_some(
        "`taskIds` names no task; expected a list of task ids, or exactly \"*\" for every task",
    )
}

fn tasks(grant: &TaskGrant) -> Value {
    match grant {
        TaskGrant::Every => "*".into(),
        TaskGrant::Only(ids) => ids.iter().map(TaskId::as_str).collect(),
    }
}

/// Writes what the server goes by.
fn describe(principal: &Principal) -> String {
    let scope: Vec<_> = principal.scopes.iter().map(|scope| scope.as_str()).collect();
    let seen = json!({
        "sub": principal.subject.as_deref(),
        "taskIds": tasks(&principal.tasks),
        "scope": scope,
        "expiresAt": principal.expires_at_ms,
        "claims": principal.claims,
    });
    format!("{seen:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("2m", 120), ("1h", 3_600), ("7d", 604_800)]
        {
            assert_eq!(parse_ttl(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0", "h", "1w", "1hh", "-1", "1.5h", "18446744073709551615d"] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn claims_are_json_or_text_and_never_those_with_a_meaning() {
        assert_eq!(parse_claim("org=x=y"), Ok(("org".to_owned(), "x=y".into())));
        assert_eq!(parse_claim("level=3"), Ok(("level".to_owned(), 3.into())));
        assert_eq!(parse_claim("groups=[\"a\"]"), Ok(("groups".to_owned(), json!(["a"]))));
        assert!(parse_claim("org").is_err() && parse_claim("taskIds=*").is_err());
    }

    #[test]
    fn tasks_are_a_star_or_ids() {
        assert_eq!(parse_tasks("*"), Ok(TaskGrant::Every));
        assert!(matches!(parse_tasks("a,b"), Ok(TaskGrant::Only(ids)) if ids.len() == 2));
        assert!(parse_tasks("a,*").is_err() && parse_tasks("").is_err());
    }

    #[test]
    fn printing_the_arguments_shows_no_token() {
        let arguments = Verify { token: Some("canary".to_owned()) };
        assert!(!format!("{arguments:?}").contains("canary"));
    }
}
