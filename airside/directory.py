"""The directory, built in code or loaded: which tenants there are, who their principals are, what each may have."""

from airside.stack.directory import Budget, Directory, IssuerKey, Principal, Tenant, load_directory
from airside.stack.issuers import OidcIssuer

__all__ = ["Budget", "Directory", "IssuerKey", "OidcIssuer", "Principal", "Tenant", "load_directory"]
