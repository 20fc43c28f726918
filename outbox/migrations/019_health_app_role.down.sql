-- privilege: app role

REVOKE SELECT ON "outbox".health FROM "app";
