-- Conditions ask every few minutes what was reported of one domain, and what one report says of it.

CREATE INDEX dmarc_report_by_domain ON dmarc_report (domain, end);
CREATE INDEX tls_report_by_end ON tls_report (end);
