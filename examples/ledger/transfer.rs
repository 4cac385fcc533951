use bigdecimal::{BigDecimal, Zero};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use diesel_neon::PooledConnection;

use crate::schema::{accounts, transactions};

/// A sum of money to transfer: positive, in whole cents.
#[derive(Debug, Clone)]
pub(crate) struct Amount(BigDecimal);

impl TryFrom<BigDecimal> for Amount {
    type Error = InvalidAmount;

    /// Refuses a third decimal digit: `NUMERIC(12, 2)` would round it, once for each side of a transfer, and so
    /// make money from nothing.
    fn try_from(amount: BigDecimal) -> Result<Self, InvalidAmount> {
        let cents = amount.normalized().fractional_digit_count() <= 2;
        if cents && amount > BigDecimal::zero() {
            Ok(Self(amount.with_scale(2)))
        } else {
            Err(InvalidAmount(amount))
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not a positive number of cents")]
pub(crate) struct InvalidAmount(BigDecimal);

#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("account {0} cannot pay itself")]
    SameAccount(i32),
    #[error("there is no account {0}")]
    NoAccount(i32),
    #[error("the account has {balance}, which does not cover {amount}")]
    Overdraft {
        balance: BigDecimal,
        amount: BigDecimal,
    },
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
}

/// Moves money from one account to the other, all of it or none.
pub(crate) async fn transfer(
    conn: &mut PooledConnection<'_>,
    from: i32,
    to: i32,
    Amount(amount): Amount,
) -> Result<(), TransferError> {
    if from == to {
        return Err(TransferError::SameAccount(from));
    }
    conn.transaction(async move |conn| {
        // The lower id is locked first, so that two transfers in opposite directions queue up instead of
        // waiting for each other forever. A balance read under the lock stays true until the commit.
        let locked: Vec<(i32, BigDecimal)> = accounts::table
            .filter(accounts::id.eq_any([from, to]))
            .order(accounts::id)
            .select((accounts::id, accounts::balance))
            .for_update()
            .load(conn)
            .await?;
        let balance = |id| {
            let found = locked.iter().find(|account| account.0 == id);
            found
                .map(|account| &account.1)
                .ok_or(TransferError::NoAccount(id))
        };
        let available = balance(from)?;
        balance(to)?;
        if *available < amount {
            return Err(TransferError::Overdraft {
                balance: available.clone(),
                amount,
            });
        }

        for (id, change) in [(from, -&amount), (to, amount)] {
            diesel::update(accounts::table.find(id))
                .set(accounts::balance.eq(accounts::balance + &change))
                .execute(conn)
                .await?;
            diesel::insert_into(transactions::table)
                .values((
                    transactions::account_id.eq(id),
                    transactions::amount.eq(&change),
                ))
                .execute(conn)
                .await?;
        }
        Ok(())
    })
    .await
}
