"""Resources: what a tool's arguments name, and the resolvers that say whose it is."""

from airside.stack.resources import SHARED, Resource, ResourceId
from airside.tools.resolving import Resolver, ResolverContext, resolver

__all__ = ["SHARED", "Resolver", "ResolverContext", "Resource", "ResourceId", "resolver"]
