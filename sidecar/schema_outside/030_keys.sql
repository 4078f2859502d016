-- Since when a DKIM key is published is asked every few minutes, of a history of a year.

CREATE INDEX history_of_keys ON history (object, measure, text, at) WHERE measure GLOB 'dkim-key-bits.*';
