//! A connection past the engine.

use leasehold_testbed::Server;

/// Opens one.
pub async fn client(server: &Server) -> tokio_postgres::Client {
    let opened = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await;
    let (client, connection) = opened.expect("it accepts");
    tokio::spawn(connection);
    client
}
