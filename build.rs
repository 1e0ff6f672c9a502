//! Makes every build use the committed `.sqlx/`, also where this crate is a
//! dependency or is built from another folder, so that no build connects to
//! whatever database `DATABASE_URL` names.

fn main() {
    println!("cargo::rustc-env=SQLX_OFFLINE=true");
    for input in ["build.rs", "migrations", "sql", ".sqlx"] {
        println!("cargo::rerun-if-changed={input}");
    }
}
