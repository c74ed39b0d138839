# Who may talk to whom: clients to the load balancer, it to the API, the tasks to AWS and the provider. Nobody to a worker.

resource "aws_security_group" "load_balancer" {
  #checkov:skip=CKV2_AWS_5:attached to the load balancer, which checkov does not follow through a list
  name        = "${var.name}-load-balancer"
  description = "Sandbox broker: clients to the load balancer"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_security_group" "task" {
  #checkov:skip=CKV2_AWS_5:attached to the services, which checkov does not follow through a map
  for_each = toset(["api", "worker"])

  name        = "${var.name}-${each.key}"
  description = "Sandbox broker: ${each.key} tasks"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each = toset(var.client_cidrs)

  security_group_id = aws_security_group.load_balancer.id
  description       = "HTTPS from clients"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "http" {
  #checkov:skip=CKV_AWS_260:port 80 answers with a redirect to HTTPS and nothing else
  for_each = toset(var.client_cidrs)

  security_group_id = aws_security_group.load_balancer.id
  description       = "HTTP from clients, redirected"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_egress_rule" "to_api" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "Requests and health checks"
  referenced_security_group_id = aws_security_group.task["api"].id
  ip_protocol                  = "tcp"
  from_port                    = local.ports.api
  to_port                      = local.ports.api
}

resource "aws_vpc_security_group_ingress_rule" "from_load_balancer" {
  security_group_id            = aws_security_group.task["api"].id
  description                  = "Requests and health checks"
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.ports.api
  to_port                      = local.ports.api
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = {
    for pair in setproduct(["api", "worker"], var.provider_cidrs) : "${pair[0]} ${pair[1]}" => { service = pair[0], cidr = pair[1] }
  }

  security_group_id = aws_security_group.task[each.value.service].id
  description       = "AWS and the provider"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# AWS without a way through the internet.

locals {
  interface_endpoints = var.create_vpc_endpoints ? toset(["sqs", "secretsmanager", "logs", "ecr.api", "ecr.dkr"]) : toset([])
  gateway_endpoints   = var.create_vpc_endpoints ? toset(["dynamodb", "s3"]) : toset([])
}

resource "aws_security_group" "endpoints" {
  #checkov:skip=CKV2_AWS_5:attached to the endpoints below, which checkov does not follow through for_each
  count = var.create_vpc_endpoints ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Sandbox broker: tasks to VPC endpoints"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = var.create_vpc_endpoints ? aws_security_group.task : {}

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "From ${each.key} tasks"
  referenced_security_group_id = each.value.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "to_endpoints" {
  for_each = var.create_vpc_endpoints ? aws_security_group.task : {}

  security_group_id            = each.value.id
  description                  = "To the VPC endpoints"
  referenced_security_group_id = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_endpoints

  vpc_id              = var.vpc_id
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = var.private_subnet_ids
  security_group_ids  = aws_security_group.endpoints[*].id
  private_dns_enabled = true
  tags                = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.gateway_endpoints

  vpc_id            = var.vpc_id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.private_route_table_ids
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })

  lifecycle {
    precondition {
      condition     = length(var.private_route_table_ids) > 0
      error_message = "create_vpc_endpoints needs private_route_table_ids: a gateway endpoint without a route serves nobody."
    }
  }
}

# The gateways of DynamoDB and S3 are public addresses by prefix list.
resource "aws_vpc_security_group_egress_rule" "to_gateways" {
  for_each = {
    for pair in setproduct(["api", "worker"], local.gateway_endpoints) : "${pair[0]} ${pair[1]}" => { service = pair[0], endpoint = pair[1] }
  }

  security_group_id = aws_security_group.task[each.value.service].id
  description       = "To ${each.value.endpoint} through its gateway"
  prefix_list_id    = aws_vpc_endpoint.gateway[each.value.endpoint].prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
