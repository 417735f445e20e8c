/**
 * What a node ID may be made of: nothing that forges log lines (line breaks, terminal codes) or means something in a
 * queue's name. 255 bytes is what RabbitMQ takes for a routing key.
 */
export const NODE_ID = /^[\w.:@+,-]{0,255}$/;
