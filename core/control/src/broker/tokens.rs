//! Gateway tokens: minted, listed, taken back; published on every change.

use identity::{GatewayToken, TokenTable};
use zeroize::Zeroizing;

use super::{Broker, Refusal, StoreError, failed};
use crate::encoding::random;

impl Broker {
    /// Reads all tokens and puts them in force for every shard.
    pub(super) async fn publish_tokens(&mut self) -> Result<(), StoreError> {
        let tokens = self.store.tokens().await?;
        let table = TokenTable::new(tokens).map_err(|_| StoreError::Full("gateway tokens"))?;
        self.tokens.publish(table);
        Ok(())
    }

    pub(super) async fn mint(
        &mut self,
        subject: String,
        groups: Vec<String>,
        ttl_s: u64,
        by: &str,
    ) -> Result<(GatewayToken, Zeroizing<String>), Refusal> {
        if self.tokens.snapshot().len() >= identity::limits::TOKENS_MAX {
            return Err(Refusal::Full {
                what: "gateway tokens",
            });
        }
        let random = random().ok_or(Refusal::Full {
            what: "random bytes",
        })?;
        let minted = identity::mint_gateway_token(random);
        let now_s = self.now() / 1000;
        let token = GatewayToken {
            id: minted.id,
            hash: minted.hash,
            subject,
            groups,
            created_unix_s: now_s,
            expires_unix_s: Some(now_s.saturating_add(ttl_s)),
            revoked_unix_s: None,
        };
        self.store
            .insert_token(&token, self.change(by))
            .await
            .map_err(failed)?;
        self.publish(token.clone())?;
        Ok((token, minted.token))
    }

    /// Takes a token back. If the store fails it is out of force all the same,
    /// until a restart; the caller is told that it failed.
    pub(super) async fn revoke(&mut self, id: &str, by: &str) -> Result<(), Refusal> {
        let kept = self.store.revoke_token(id, self.change(by)).await;
        if let Some(mut token) = self.tokens.snapshot().token(id).cloned()
            && token.revoked_unix_s.is_none()
        {
            // From what is in force, not from the store: a revocation must not
            // wait for a read that may fail.
            token.revoked_unix_s = Some(self.now() / 1000);
            self.publish(token)?;
        }
        match kept {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::NotFound),
            Err(error) => Err(failed(error)),
        }
    }

    fn publish(&self, token: GatewayToken) -> Result<(), Refusal> {
        let full = |_| Refusal::Full {
            what: "gateway tokens",
        };
        self.tokens
            .publish(self.tokens.snapshot().with_token(token).map_err(full)?);
        Ok(())
    }
}
