//! `cargo run -p eleven-example-axum`: the application of `lib.rs` on http://127.0.0.1:8000/.

use eleven_server::apps::service;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // With hyper: `axum::serve(TcpListener::bind("127.0.0.1:8000").await?, app()).await?`.
    let mut server = service::serve("127.0.0.1:8000".parse()?, eleven_example_axum::app())?;
    println!("Serving {}", server.addresses().join(" "));
    server.wait();
    Ok(())
}
