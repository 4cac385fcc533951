CREATE TABLE accounts (
    id SERIAL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    balance NUMERIC(12, 2) NOT NULL DEFAULT 0 CHECK (balance >= 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE transactions (
    id SERIAL PRIMARY KEY,
    account_id INT NOT NULL REFERENCES accounts (id),
    amount NUMERIC(12, 2) NOT NULL CHECK (amount <> 0),
    date TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- A statement of account reads one account's transactions, the latest first.
CREATE INDEX transactions_account_id_date_idx ON transactions (account_id, date DESC);
