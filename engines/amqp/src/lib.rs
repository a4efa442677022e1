//! The engine that speaks to RabbitMQ and other AMQP 0-9-1 brokers.
