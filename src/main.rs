//! The `rekindle` command. Everything is in the library; see `rekindle --help`.

use rekindle::cli;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    cli::main().await.into()
}
