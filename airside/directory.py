"""The directory, built in code or loaded: which tenants there are, who their principals are, what each may have."""

from airside.stack.directory import Budget, Directory, IssuerKey, Principal, Tenant, load_directory

__all__ = ["Budget", "Directory", "IssuerKey", "Principal", "Tenant", "load_directory"]
