<?php
// Writes the events of a file in PHP: producer.php WAY URL TOPIC EVENTS.
[, $way, $url, $topic, $file] = $argv;
$at = parse_url($url);
$db = new PDO(
    sprintf('pgsql:host=%s;port=%d;dbname=%s', $at['host'], $at['port'], ltrim($at['path'], '/')),
    rawurldecode($at['user'] ?? ''),
    rawurldecode($at['pass'] ?? ''),
    [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION],
);

foreach (json_decode(file_get_contents($file), false, 512, JSON_THROW_ON_ERROR) as $event) { // objects, since {} as an array becomes []
    $db->beginTransaction();
    $set = $db->prepare('SELECT set_config(?, ?, true)');
    if (isset($event->traceparent)) {
        $set->execute(['outbox.traceparent', $event->traceparent]);
    }
    if (isset($event->context)) {
        $set->execute(['outbox.headers', json_encode($event->context, JSON_THROW_ON_ERROR)]);
    }
    $bytes = isset($event->bytes) ? base64_decode($event->bytes) : null;
    $headers = isset($event->headers) ? json_encode($event->headers, JSON_THROW_ON_ERROR) : null;

    if ($way === 'insert') {
        $write = $db->prepare('INSERT INTO outbox.events (topic, key, type, payload, payload_bytes, headers) VALUES (?, ?, ?, ?, ?, ?)');
        $write->bindValue(4, $event->payload ?? null);
        $write->bindValue(5, $bytes, $bytes === null ? PDO::PARAM_NULL : PDO::PARAM_LOB); // bytes are told by the type of the parameter
        $write->bindValue(6, $headers);
        $write->bindValue(3, $event->type ?? null);
    } else {
        $write = $db->prepare('SELECT outbox.publish(?, ?, ' . ($bytes === null ? '?' : '?::bytea') . ', ?, ?)');
        $write->bindValue(3, $bytes ?? $event->payload ?? null, $bytes === null ? PDO::PARAM_STR : PDO::PARAM_LOB);
        $write->bindValue(4, $event->type ?? null);
        $write->bindValue(5, $headers);
    }
    $write->bindValue(1, $topic);
    $write->bindValue(2, $event->key);
    $write->execute();
    $db->commit();
}
