module github.com/outrider-cdc/outrider/outbox

go 1.22
