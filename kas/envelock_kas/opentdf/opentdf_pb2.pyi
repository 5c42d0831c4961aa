from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALGORITHM_UNSPECIFIED: _ClassVar[Algorithm]
    ALGORITHM_RSA_2048: _ClassVar[Algorithm]
    ALGORITHM_RSA_4096: _ClassVar[Algorithm]
    ALGORITHM_EC_P256: _ClassVar[Algorithm]
    ALGORITHM_EC_P384: _ClassVar[Algorithm]
    ALGORITHM_EC_P521: _ClassVar[Algorithm]
    ALGORITHM_HPQT_XWING: _ClassVar[Algorithm]
    ALGORITHM_HPQT_SECP256R1_MLKEM768: _ClassVar[Algorithm]
    ALGORITHM_HPQT_SECP384R1_MLKEM1024: _ClassVar[Algorithm]
    ALGORITHM_MLKEM_768: _ClassVar[Algorithm]
    ALGORITHM_MLKEM_1024: _ClassVar[Algorithm]

class AttributeRuleTypeEnum(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTRIBUTE_RULE_TYPE_ENUM_UNSPECIFIED: _ClassVar[AttributeRuleTypeEnum]
    ATTRIBUTE_RULE_TYPE_ENUM_ALL_OF: _ClassVar[AttributeRuleTypeEnum]
    ATTRIBUTE_RULE_TYPE_ENUM_ANY_OF: _ClassVar[AttributeRuleTypeEnum]
    ATTRIBUTE_RULE_TYPE_ENUM_HIERARCHY: _ClassVar[AttributeRuleTypeEnum]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_DENY: _ClassVar[Decision]
    DECISION_PERMIT: _ClassVar[Decision]
ALGORITHM_UNSPECIFIED: Algorithm
ALGORITHM_RSA_2048: Algorithm
ALGORITHM_RSA_4096: Algorithm
ALGORITHM_EC_P256: Algorithm
ALGORITHM_EC_P384: Algorithm
ALGORITHM_EC_P521: Algorithm
ALGORITHM_HPQT_XWING: Algorithm
ALGORITHM_HPQT_SECP256R1_MLKEM768: Algorithm
ALGORITHM_HPQT_SECP384R1_MLKEM1024: Algorithm
ALGORITHM_MLKEM_768: Algorithm
ALGORITHM_MLKEM_1024: Algorithm
ATTRIBUTE_RULE_TYPE_ENUM_UNSPECIFIED: AttributeRuleTypeEnum
ATTRIBUTE_RULE_TYPE_ENUM_ALL_OF: AttributeRuleTypeEnum
ATTRIBUTE_RULE_TYPE_ENUM_ANY_OF: AttributeRuleTypeEnum
ATTRIBUTE_RULE_TYPE_ENUM_HIERARCHY: AttributeRuleTypeEnum
DECISION_UNSPECIFIED: Decision
DECISION_DENY: Decision
DECISION_PERMIT: Decision

class PublicKeyRequest(_message.Message):
    __slots__ = ("algorithm", "fmt", "v")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    FMT_FIELD_NUMBER: _ClassVar[int]
    V_FIELD_NUMBER: _ClassVar[int]
    algorithm: str
    fmt: str
    v: str
    def __init__(self, algorithm: _Optional[str] = ..., fmt: _Optional[str] = ..., v: _Optional[str] = ...) -> None: ...

class PublicKeyResponse(_message.Message):
    __slots__ = ("public_key", "kid")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    KID_FIELD_NUMBER: _ClassVar[int]
    public_key: str
    kid: str
    def __init__(self, public_key: _Optional[str] = ..., kid: _Optional[str] = ...) -> None: ...

class RewrapRequest(_message.Message):
    __slots__ = ("signed_request_token",)
    SIGNED_REQUEST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    signed_request_token: str
    def __init__(self, signed_request_token: _Optional[str] = ...) -> None: ...

class KeyAccessRewrapResult(_message.Message):
    __slots__ = ("metadata", "key_access_object_id", "status", "kas_wrapped_key", "error")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    METADATA_FIELD_NUMBER: _ClassVar[int]
    KEY_ACCESS_OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    KAS_WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    metadata: _containers.MessageMap[str, _struct_pb2.Value]
    key_access_object_id: str
    status: str
    kas_wrapped_key: bytes
    error: str
    def __init__(self, metadata: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., key_access_object_id: _Optional[str] = ..., status: _Optional[str] = ..., kas_wrapped_key: _Optional[bytes] = ..., error: _Optional[str] = ...) -> None: ...

class PolicyRewrapResult(_message.Message):
    __slots__ = ("policy_id", "results")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    results: _containers.RepeatedCompositeFieldContainer[KeyAccessRewrapResult]
    def __init__(self, policy_id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[KeyAccessRewrapResult, _Mapping]]] = ...) -> None: ...

class RewrapResponse(_message.Message):
    __slots__ = ("metadata", "entity_wrapped_key", "session_public_key", "schema_version", "responses")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ENTITY_WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    metadata: _containers.MessageMap[str, _struct_pb2.Value]
    entity_wrapped_key: bytes
    session_public_key: str
    schema_version: str
    responses: _containers.RepeatedCompositeFieldContainer[PolicyRewrapResult]
    def __init__(self, metadata: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., entity_wrapped_key: _Optional[bytes] = ..., session_public_key: _Optional[str] = ..., schema_version: _Optional[str] = ..., responses: _Optional[_Iterable[_Union[PolicyRewrapResult, _Mapping]]] = ...) -> None: ...

class GetWellKnownConfigurationRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetWellKnownConfigurationResponse(_message.Message):
    __slots__ = ("configuration",)
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    configuration: _struct_pb2.Struct
    def __init__(self, configuration: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class HealthCheckRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class HealthCheckResponse(_message.Message):
    __slots__ = ("status",)
    class ServingStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[HealthCheckResponse.ServingStatus]
        SERVING: _ClassVar[HealthCheckResponse.ServingStatus]
        NOT_SERVING: _ClassVar[HealthCheckResponse.ServingStatus]
        SERVICE_UNKNOWN: _ClassVar[HealthCheckResponse.ServingStatus]
    UNKNOWN: HealthCheckResponse.ServingStatus
    SERVING: HealthCheckResponse.ServingStatus
    NOT_SERVING: HealthCheckResponse.ServingStatus
    SERVICE_UNKNOWN: HealthCheckResponse.ServingStatus
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: HealthCheckResponse.ServingStatus
    def __init__(self, status: _Optional[_Union[HealthCheckResponse.ServingStatus, str]] = ...) -> None: ...

class SimpleKasPublicKey(_message.Message):
    __slots__ = ("algorithm", "kid", "pem")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    KID_FIELD_NUMBER: _ClassVar[int]
    PEM_FIELD_NUMBER: _ClassVar[int]
    algorithm: Algorithm
    kid: str
    pem: str
    def __init__(self, algorithm: _Optional[_Union[Algorithm, str]] = ..., kid: _Optional[str] = ..., pem: _Optional[str] = ...) -> None: ...

class SimpleKasKey(_message.Message):
    __slots__ = ("kas_uri", "public_key", "kas_id")
    KAS_URI_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    KAS_ID_FIELD_NUMBER: _ClassVar[int]
    kas_uri: str
    public_key: SimpleKasPublicKey
    kas_id: str
    def __init__(self, kas_uri: _Optional[str] = ..., public_key: _Optional[_Union[SimpleKasPublicKey, _Mapping]] = ..., kas_id: _Optional[str] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("id", "name", "fqn", "active")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FQN_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    fqn: str
    active: _wrappers_pb2.BoolValue
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., fqn: _Optional[str] = ..., active: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("id", "namespace", "name", "rule", "values", "fqn", "active", "kas_keys")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FQN_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    KAS_KEYS_FIELD_NUMBER: _ClassVar[int]
    id: str
    namespace: Namespace
    name: str
    rule: AttributeRuleTypeEnum
    values: _containers.RepeatedCompositeFieldContainer[Value]
    fqn: str
    active: _wrappers_pb2.BoolValue
    kas_keys: _containers.RepeatedCompositeFieldContainer[SimpleKasKey]
    def __init__(self, id: _Optional[str] = ..., namespace: _Optional[_Union[Namespace, _Mapping]] = ..., name: _Optional[str] = ..., rule: _Optional[_Union[AttributeRuleTypeEnum, str]] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., fqn: _Optional[str] = ..., active: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., kas_keys: _Optional[_Iterable[_Union[SimpleKasKey, _Mapping]]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("id", "attribute", "value", "fqn", "active", "kas_keys")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FQN_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    KAS_KEYS_FIELD_NUMBER: _ClassVar[int]
    id: str
    attribute: Attribute
    value: str
    fqn: str
    active: _wrappers_pb2.BoolValue
    kas_keys: _containers.RepeatedCompositeFieldContainer[SimpleKasKey]
    def __init__(self, id: _Optional[str] = ..., attribute: _Optional[_Union[Attribute, _Mapping]] = ..., value: _Optional[str] = ..., fqn: _Optional[str] = ..., active: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., kas_keys: _Optional[_Iterable[_Union[SimpleKasKey, _Mapping]]] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetAttributeValuesByFqnsRequest(_message.Message):
    __slots__ = ("fqns",)
    FQNS_FIELD_NUMBER: _ClassVar[int]
    fqns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, fqns: _Optional[_Iterable[str]] = ...) -> None: ...

class GetAttributeValuesByFqnsResponse(_message.Message):
    __slots__ = ("fqn_attribute_values",)
    class AttributeAndValue(_message.Message):
        __slots__ = ("attribute", "value")
        ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        attribute: Attribute
        value: Value
        def __init__(self, attribute: _Optional[_Union[Attribute, _Mapping]] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    class FqnAttributeValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: GetAttributeValuesByFqnsResponse.AttributeAndValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[GetAttributeValuesByFqnsResponse.AttributeAndValue, _Mapping]] = ...) -> None: ...
    FQN_ATTRIBUTE_VALUES_FIELD_NUMBER: _ClassVar[int]
    fqn_attribute_values: _containers.MessageMap[str, GetAttributeValuesByFqnsResponse.AttributeAndValue]
    def __init__(self, fqn_attribute_values: _Optional[_Mapping[str, GetAttributeValuesByFqnsResponse.AttributeAndValue]] = ...) -> None: ...

class GetKeyMappingsByFqnsRequest(_message.Message):
    __slots__ = ("fqns",)
    FQNS_FIELD_NUMBER: _ClassVar[int]
    fqns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, fqns: _Optional[_Iterable[str]] = ...) -> None: ...

class GetKeyMappingsByFqnsResponse(_message.Message):
    __slots__ = ("fqn_key_mappings",)
    class AttributeKeyMapping(_message.Message):
        __slots__ = ("rule", "keys")
        RULE_FIELD_NUMBER: _ClassVar[int]
        KEYS_FIELD_NUMBER: _ClassVar[int]
        rule: AttributeRuleTypeEnum
        keys: _containers.RepeatedCompositeFieldContainer[SimpleKasKey]
        def __init__(self, rule: _Optional[_Union[AttributeRuleTypeEnum, str]] = ..., keys: _Optional[_Iterable[_Union[SimpleKasKey, _Mapping]]] = ...) -> None: ...
    class FqnKeyMappingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: GetKeyMappingsByFqnsResponse.AttributeKeyMapping
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[GetKeyMappingsByFqnsResponse.AttributeKeyMapping, _Mapping]] = ...) -> None: ...
    FQN_KEY_MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    fqn_key_mappings: _containers.MessageMap[str, GetKeyMappingsByFqnsResponse.AttributeKeyMapping]
    def __init__(self, fqn_key_mappings: _Optional[_Mapping[str, GetKeyMappingsByFqnsResponse.AttributeKeyMapping]] = ...) -> None: ...

class KeyAccessServer(_message.Message):
    __slots__ = ("id", "uri", "kas_keys", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    KAS_KEYS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    uri: str
    kas_keys: _containers.RepeatedCompositeFieldContainer[SimpleKasKey]
    name: str
    def __init__(self, id: _Optional[str] = ..., uri: _Optional[str] = ..., kas_keys: _Optional[_Iterable[_Union[SimpleKasKey, _Mapping]]] = ..., name: _Optional[str] = ...) -> None: ...

class PageResponse(_message.Message):
    __slots__ = ("current_offset", "next_offset", "total")
    CURRENT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    current_offset: int
    next_offset: int
    total: int
    def __init__(self, current_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ListKeyAccessServersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListKeyAccessServersResponse(_message.Message):
    __slots__ = ("key_access_servers", "pagination")
    KEY_ACCESS_SERVERS_FIELD_NUMBER: _ClassVar[int]
    PAGINATION_FIELD_NUMBER: _ClassVar[int]
    key_access_servers: _containers.RepeatedCompositeFieldContainer[KeyAccessServer]
    pagination: PageResponse
    def __init__(self, key_access_servers: _Optional[_Iterable[_Union[KeyAccessServer, _Mapping]]] = ..., pagination: _Optional[_Union[PageResponse, _Mapping]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("ephemeral_id", "jwt")
    EPHEMERAL_ID_FIELD_NUMBER: _ClassVar[int]
    JWT_FIELD_NUMBER: _ClassVar[int]
    ephemeral_id: str
    jwt: str
    def __init__(self, ephemeral_id: _Optional[str] = ..., jwt: _Optional[str] = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("ephemeral_id", "email_address", "user_name", "claims", "client_id", "category")
    class Category(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CATEGORY_UNSPECIFIED: _ClassVar[Entity.Category]
        CATEGORY_SUBJECT: _ClassVar[Entity.Category]
        CATEGORY_ENVIRONMENT: _ClassVar[Entity.Category]
    CATEGORY_UNSPECIFIED: Entity.Category
    CATEGORY_SUBJECT: Entity.Category
    CATEGORY_ENVIRONMENT: Entity.Category
    EPHEMERAL_ID_FIELD_NUMBER: _ClassVar[int]
    EMAIL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ephemeral_id: str
    email_address: str
    user_name: str
    claims: _any_pb2.Any
    client_id: str
    category: Entity.Category
    def __init__(self, ephemeral_id: _Optional[str] = ..., email_address: _Optional[str] = ..., user_name: _Optional[str] = ..., claims: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., client_id: _Optional[str] = ..., category: _Optional[_Union[Entity.Category, str]] = ...) -> None: ...

class EntityChain(_message.Message):
    __slots__ = ("ephemeral_id", "entities")
    EPHEMERAL_ID_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    ephemeral_id: str
    entities: _containers.RepeatedCompositeFieldContainer[Entity]
    def __init__(self, ephemeral_id: _Optional[str] = ..., entities: _Optional[_Iterable[_Union[Entity, _Mapping]]] = ...) -> None: ...

class EntityIdentifier(_message.Message):
    __slots__ = ("entity_chain", "registered_resource_value_fqn", "token", "with_request_token")
    ENTITY_CHAIN_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_RESOURCE_VALUE_FQN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_REQUEST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entity_chain: EntityChain
    registered_resource_value_fqn: str
    token: Token
    with_request_token: _wrappers_pb2.BoolValue
    def __init__(self, entity_chain: _Optional[_Union[EntityChain, _Mapping]] = ..., registered_resource_value_fqn: _Optional[str] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., with_request_token: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("ephemeral_id", "attribute_values", "registered_resource_value_fqn")
    class AttributeValues(_message.Message):
        __slots__ = ("fqns",)
        FQNS_FIELD_NUMBER: _ClassVar[int]
        fqns: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, fqns: _Optional[_Iterable[str]] = ...) -> None: ...
    EPHEMERAL_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_VALUES_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_RESOURCE_VALUE_FQN_FIELD_NUMBER: _ClassVar[int]
    ephemeral_id: str
    attribute_values: Resource.AttributeValues
    registered_resource_value_fqn: str
    def __init__(self, ephemeral_id: _Optional[str] = ..., attribute_values: _Optional[_Union[Resource.AttributeValues, _Mapping]] = ..., registered_resource_value_fqn: _Optional[str] = ...) -> None: ...

class ResourceDecision(_message.Message):
    __slots__ = ("ephemeral_resource_id", "decision", "required_obligations")
    EPHEMERAL_RESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    ephemeral_resource_id: str
    decision: Decision
    required_obligations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ephemeral_resource_id: _Optional[str] = ..., decision: _Optional[_Union[Decision, str]] = ..., required_obligations: _Optional[_Iterable[str]] = ...) -> None: ...

class GetDecisionRequest(_message.Message):
    __slots__ = ("entity_identifier", "action", "resource", "fulfillable_obligation_fqns")
    ENTITY_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    FULFILLABLE_OBLIGATION_FQNS_FIELD_NUMBER: _ClassVar[int]
    entity_identifier: EntityIdentifier
    action: Action
    resource: Resource
    fulfillable_obligation_fqns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entity_identifier: _Optional[_Union[EntityIdentifier, _Mapping]] = ..., action: _Optional[_Union[Action, _Mapping]] = ..., resource: _Optional[_Union[Resource, _Mapping]] = ..., fulfillable_obligation_fqns: _Optional[_Iterable[str]] = ...) -> None: ...

class GetDecisionResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: ResourceDecision
    def __init__(self, decision: _Optional[_Union[ResourceDecision, _Mapping]] = ...) -> None: ...

class GetDecisionMultiResourceRequest(_message.Message):
    __slots__ = ("entity_identifier", "action", "resources", "fulfillable_obligation_fqns")
    ENTITY_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    FULFILLABLE_OBLIGATION_FQNS_FIELD_NUMBER: _ClassVar[int]
    entity_identifier: EntityIdentifier
    action: Action
    resources: _containers.RepeatedCompositeFieldContainer[Resource]
    fulfillable_obligation_fqns: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entity_identifier: _Optional[_Union[EntityIdentifier, _Mapping]] = ..., action: _Optional[_Union[Action, _Mapping]] = ..., resources: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., fulfillable_obligation_fqns: _Optional[_Iterable[str]] = ...) -> None: ...

class GetDecisionMultiResourceResponse(_message.Message):
    __slots__ = ("all_permitted", "resource_decisions")
    ALL_PERMITTED_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    all_permitted: _wrappers_pb2.BoolValue
    resource_decisions: _containers.RepeatedCompositeFieldContainer[ResourceDecision]
    def __init__(self, all_permitted: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., resource_decisions: _Optional[_Iterable[_Union[ResourceDecision, _Mapping]]] = ...) -> None: ...

class GetDecisionBulkRequest(_message.Message):
    __slots__ = ("decision_requests",)
    DECISION_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    decision_requests: _containers.RepeatedCompositeFieldContainer[GetDecisionMultiResourceRequest]
    def __init__(self, decision_requests: _Optional[_Iterable[_Union[GetDecisionMultiResourceRequest, _Mapping]]] = ...) -> None: ...

class GetDecisionBulkResponse(_message.Message):
    __slots__ = ("decision_responses",)
    DECISION_RESPONSES_FIELD_NUMBER: _ClassVar[int]
    decision_responses: _containers.RepeatedCompositeFieldContainer[GetDecisionMultiResourceResponse]
    def __init__(self, decision_responses: _Optional[_Iterable[_Union[GetDecisionMultiResourceResponse, _Mapping]]] = ...) -> None: ...

class GetEntitlementsRequest(_message.Message):
    __slots__ = ("entity_identifier", "with_comprehensive_hierarchy")
    ENTITY_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    WITH_COMPREHENSIVE_HIERARCHY_FIELD_NUMBER: _ClassVar[int]
    entity_identifier: EntityIdentifier
    with_comprehensive_hierarchy: bool
    def __init__(self, entity_identifier: _Optional[_Union[EntityIdentifier, _Mapping]] = ..., with_comprehensive_hierarchy: _Optional[bool] = ...) -> None: ...

class EntityEntitlements(_message.Message):
    __slots__ = ("ephemeral_id", "actions_per_attribute_value_fqn")
    class ActionsList(_message.Message):
        __slots__ = ("actions",)
        ACTIONS_FIELD_NUMBER: _ClassVar[int]
        actions: _containers.RepeatedCompositeFieldContainer[Action]
        def __init__(self, actions: _Optional[_Iterable[_Union[Action, _Mapping]]] = ...) -> None: ...
    class ActionsPerAttributeValueFqnEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: EntityEntitlements.ActionsList
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[EntityEntitlements.ActionsList, _Mapping]] = ...) -> None: ...
    EPHEMERAL_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_PER_ATTRIBUTE_VALUE_FQN_FIELD_NUMBER: _ClassVar[int]
    ephemeral_id: str
    actions_per_attribute_value_fqn: _containers.MessageMap[str, EntityEntitlements.ActionsList]
    def __init__(self, ephemeral_id: _Optional[str] = ..., actions_per_attribute_value_fqn: _Optional[_Mapping[str, EntityEntitlements.ActionsList]] = ...) -> None: ...

class GetEntitlementsResponse(_message.Message):
    __slots__ = ("entitlements",)
    ENTITLEMENTS_FIELD_NUMBER: _ClassVar[int]
    entitlements: _containers.RepeatedCompositeFieldContainer[EntityEntitlements]
    def __init__(self, entitlements: _Optional[_Iterable[_Union[EntityEntitlements, _Mapping]]] = ...) -> None: ...
