"""The OpenID Connect provider that people sign in with: where to send a browser, and who came back with a code.

The authorization code flow with PKCE. What the provider says is believed only over TLS, signed by its own key, meant
for this site, fresh, and bound to the browser that began: see `redeem`.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from orchestrator.settings import HubSettings
from submissions.people.persons import Identity, identity_of
from submissions.people.refusals import ProviderAway, SignInRefused

SCOPE = "openid profile email"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""With a public key alone: a shared secret, or no signature at all, proves nothing here."""
LEEWAY_SECONDS = 60
"""How far the provider's clock may be from ours."""
KNOWN_FOR_SECONDS = 3600.0
TIMEOUT_SECONDS = 10.0
AWAY_FOR_SECONDS = 20.0
"""After it did not answer it is not asked again: each who asks waits, and keeps others from being served meanwhile."""
PATIENCE_SECONDS = 1.0
"""How long one waits for another who asks the same."""
BACK = "/signin/back"
"""Path that the provider sends browsers back to; it must be registered there."""


class Provider:
    """One provider, as the settings name it. Its own description is read when first wanted."""

    def __init__(self, settings: HubSettings) -> None:
        self._issuer = settings.login_issuer.rstrip("/")
        self._client_id = settings.login_client_id
        self._secret = settings.login_client_secret.get_secret_value() if settings.login_client_secret else None
        self._back = settings.public_url.rstrip("/") + BACK
        usual = "orgs" if httpx.URL(self._issuer).host == "huggingface.co" else "groups"
        self._teams_claim = settings.login_teams or usual
        self._lock = threading.Lock()
        self._failed: tuple[float, str] | None = None
        self._described: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, dict[str, Any]] | None = None

    def address(self, *, state: str, nonce: str, verifier: str) -> str:
        """Where to send a browser.

        Raises:
            ProviderAway: it cannot be asked where that is.
        """
        described = self._describe()
        with self._client(described) as client:
            url, _ = client.create_authorization_url(
                described["authorization_endpoint"], state=state, code_verifier=verifier, nonce=nonce
            )
        return str(url)

    def redeem(self, code: str, *, nonce: str, verifier: str) -> Identity:
        """Who came back with this code.

        Raises:
            SignInRefused: the code or what it was given for does not hold.
            ProviderAway: the provider does not answer as one does.
        """
        described = self._describe()
        try:
            with self._client(described) as client:
                token = client.fetch_token(described["token_endpoint"], code=code, code_verifier=verifier)
        except OAuthError as error:
            raise SignInRefused("The provider did not accept this sign-in. Begin again from the board.") from error
        except Exception as error:  # httpx2's errors, or an answer that is no JSON
            raise ProviderAway(self._away(error)) from error
        signed, access = token.get("id_token"), token.get("access_token")
        if not isinstance(signed, str):
            raise SignInRefused("The provider said nothing of who signed in. Check that its client may use `openid`.")
        claims = self._verify(signed, described, nonce=nonce, access=access)
        if "userinfo_endpoint" in described and isinstance(access, str):
            claims = self._more(described["userinfo_endpoint"], access, claims) | claims
        return identity_of(self._issuer, claims, teams_claim=self._teams_claim)

    def _verify(self, signed: str, described: Mapping[str, Any], *, nonce: str, access: Any) -> dict[str, Any]:
        """The claims of an ID token that is signed by the provider, for this site, now, and for this browser."""
        offered = described.get("id_token_signing_alg_values_supported") or ["RS256"]
        algorithms = [name for name in ALGORITHMS if name in offered]
        if not algorithms:  # an empty list would mean the library's own choice, shared secrets among it
            raise ProviderAway(
                f"{self._issuer} signs with nothing that is taken here. Let it sign ID tokens with RS256 or ES256."
            )
        registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)
        try:
            try:
                decoded = jwt.decode(signed, self._key_set(described), registry=registry)
            except InvalidKeyIdError:
                decoded = jwt.decode(signed, self._key_set(described, again=True), registry=registry)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": described["issuer"]},
                    "aud": {"essential": True, "value": self._client_id},
                    "sub": {"essential": True},
                    "nonce": {"essential": True, "value": nonce},
                },
                {"nonce": nonce, "client_id": self._client_id, "access_token": access},
            )
            claims.validate(now=int(time.time()), leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise SignInRefused(
                "What the provider said of you does not hold "
                f"({getattr(error, 'error', type(error).__name__)}). Begin again from the board."
            ) from error
        return dict(claims)

    def _more(self, url: str, access: str, claims: Mapping[str, Any]) -> dict[str, Any]:
        """What the provider says besides, of the same person; nothing where it does not answer."""
        try:
            found = self._get(url, headers={"authorization": f"Bearer {access}"})
        except ProviderAway:
            return {}
        return found if found.get("sub") == claims["sub"] else {}

    def _describe(self) -> dict[str, Any]:
        known = self._described
        if known is not None and time.monotonic() - known[0] <= KNOWN_FOR_SECONDS:
            return known[1]
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            raise ProviderAway(f"The identity provider {self._issuer} is slow to answer. Try again in a minute.")
        try:
            if self._described is None or time.monotonic() - self._described[0] > KNOWN_FOR_SECONDS:
                self._described = time.monotonic(), self._ask_again()
            return self._described[1]
        finally:
            self._lock.release()

    def _ask_again(self) -> dict[str, Any]:
        """Its description, asked for now; not soon after it did not answer."""
        if self._failed is not None and time.monotonic() - self._failed[0] < AWAY_FOR_SECONDS:
            raise ProviderAway(self._failed[1])
        try:
            found = self._get(f"{self._issuer}/.well-known/openid-configuration")
            if str(found.get("issuer")).rstrip("/") != self._issuer:
                raise ProviderAway(
                    f"{self._issuer} calls itself {str(found.get('issuer'))[:200]}. "
                    "Set EVALYARD_LOGIN_ISSUER to the provider's own name."
                )
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not isinstance(found.get(name), str):
                    raise ProviderAway(f"{self._issuer} names no {name}: it is no OpenID Connect provider.")
        except ProviderAway as error:
            self._failed = time.monotonic(), str(error)
            raise
        return found

    def _key_set(self, described: Mapping[str, Any], *, again: bool = False) -> KeySet:
        with self._lock:
            if again or self._keys is None or time.monotonic() - self._keys[0] > KNOWN_FOR_SECONDS:
                self._keys = time.monotonic(), self._get(described["jwks_uri"])
            return KeySet.import_key_set(self._keys[1])  # type: ignore[arg-type]  # it is checked there

    def _client(self, described: Mapping[str, Any]) -> OAuth2Client:
        ways = described.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        way = "client_secret_basic" if "client_secret_basic" in ways else "client_secret_post"
        return OAuth2Client(
            self._client_id,
            self._secret,
            token_endpoint_auth_method=way if self._secret else "none",
            scope=SCOPE,
            redirect_uri=self._back,
            code_challenge_method="S256",
            timeout=TIMEOUT_SECONDS,
        )

    def _get(self, url: str, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = httpx.get(url, headers=headers, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            found = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ProviderAway(self._away(error)) from error
        if not isinstance(found, dict):
            raise ProviderAway(f"{self._issuer} answers with something that is no OpenID Connect provider's.")
        return found

    def _away(self, error: Exception) -> str:
        return (
            f"The identity provider {self._issuer} does not answer as it should ({type(error).__name__}), so nobody "
            "can sign in now. Who is signed in already stays so; try again in a minute."
        )
