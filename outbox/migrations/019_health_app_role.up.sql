-- privilege: app role
-- A role that writes events may see how they fare.

GRANT SELECT ON "outbox".health TO "app";
